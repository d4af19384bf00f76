//! The crate as a whole: what the picker chooses, and a whole LSM tree in vectors.

mod golden;
mod history;
mod lsm;
