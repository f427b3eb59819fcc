//! A cluster's life from one seed.
