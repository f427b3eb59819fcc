//! The index against plain maps.
