//! The simulated Redis is held against a real one.
