//! What every store must pass. Written against [`crate::store::Store`] alone.
