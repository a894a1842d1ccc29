//! Tests that need tools beside cargo, which `scripts/test` installs.

mod runs;
