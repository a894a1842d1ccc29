//! Settings: built-in defaults, then a TOML file, then the environment, then flags; the later wins.
//!
//! `table` says what can be set; nothing else lists it. `layers` reads: every value keeps its source, so
//! that a complaint names the key *and* the file, variable or flag that it came from. `check` looks at the
//! whole: code behind a [`Config`] that [`Config::load`] hands out needs no second look at a range. `derived`
//! is what follows from the values, `text` what people read of them.
//!
//! What does not belong here: opening files other than the configuration and those that it points at, generating secrets, and anything that a running service changes.

mod check;
mod derived;
mod layers;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub(crate) use check::QUEUE_PLACE;
pub use layers::{ConfigError, ConfigProblem, LoadOptions, Loaded, Source};
pub use table::*;
pub(crate) use text::{flag_help, keys_text};
pub use value::Secret;

impl Config {
    /// Reads all layers, resolves secrets that are given as files, and validates.
    ///
    /// # Errors
    /// [`ConfigError`] with everything found: unreadable file, unknown key or variable, wrong type,
    /// a secret given twice; and, where all of that is in order, every value out of range.
    pub fn load(options: LoadOptions) -> Result<Loaded, ConfigError> {
        let loaded = layers::read(options)?;
        loaded.config.validate().map_err(|mut error| {
            for problem in &mut error.problems {
                problem.source = loaded.sources.get(check::key_of(&problem.key)).cloned();
            }
            error
        })?;
        Ok(loaded)
    }

    /// Checks every value and every relation between values.
    ///
    /// # Errors
    /// [`ConfigError`] with all problems, not only the first.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problems = check::check(self);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }
}
