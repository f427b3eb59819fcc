//! Recorded client histories and their judges.
