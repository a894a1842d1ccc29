//! The layers: a file, the environment and flags, merged key by key, each value with its source.
//!
//! What does not belong here: which settings there are (`table`), and what they must be (`check`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::table::{Config, SECTIONS, Setting, setting, settings};

/// What environment variables that set a key start with.
const ENV_PREFIX: &str = "BOXOFFICE_";
/// Names the configuration file; not a key of its own.
const ENV_CONFIG_FILE: &str = "BOXOFFICE_CONFIG";
/// Variables for the project's own test suites; the service ignores them.
const ENV_TEST_PREFIX: &str = "BOXOFFICE_TEST_";
/// The file that is read from the working directory where none is named.
const DEFAULT_FILE: &str = "boxoffice.toml";

/// The layer that a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// `--set key=value` or a flag of its own.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(key) => write!(f, "flag --set {key}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Full path of the key, such as `server.listen`; empty where a whole file is unreadable.
    pub key: String,
    /// Where the value came from; none for a built-in default.
    pub source: Option<Source>,
    /// What is wrong with it. Never contains a secret.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, " (from {source})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration, so that an operator corrects it in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems, at least one.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.problems.len() == 1 { "" } else { "s" };
        write!(f, "the configuration has {} problem{plural}:", self.problems.len())?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// What [`Config::load`] reads.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `--config FILE`; must exist. Without it `BOXOFFICE_CONFIG`, then `boxoffice.toml` in
    /// [`LoadOptions::working_dir`] where it exists.
    pub config_file: Option<PathBuf>,
    /// Flags as `(key path, text)`; a later one wins.
    pub overrides: Vec<(String, String)>,
    /// The environment; only names that start with `BOXOFFICE_` are looked at.
    pub env: Vec<(String, String)>,
    /// Where `boxoffice.toml` is looked for; none means the process's working directory.
    pub working_dir: Option<PathBuf>,
}

impl LoadOptions {
    /// Options with the process's own environment. A name or value that is not UTF-8 is replaced
    /// lossily, so that it is reported and not silently ignored.
    pub fn from_process(config_file: Option<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        let env = std::env::vars_os()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
            })
            .filter(|(name, _)| name.starts_with(ENV_PREFIX))
            .collect();
        Self { config_file, overrides, env, working_dir: None }
    }
}

/// A validated configuration and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Source by key, for the keys that some layer set.
    pub sources: BTreeMap<&'static str, Source>,
}

/// The layers while they are being merged.
#[derive(Default)]
struct Layers {
    values: BTreeMap<&'static str, (Value, Source)>,
    problems: Vec<ConfigProblem>,
}

/// Reads all layers, and the secrets that are given as files.
///
/// # Errors
/// Everything that is not a value of a setting. Ranges have not been looked at.
pub(super) fn read(options: LoadOptions) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::default();
    let named = options.env.iter().find(|(name, _)| name == ENV_CONFIG_FILE);
    match options.config_file.or(named.map(|(_, value)| PathBuf::from(value))) {
        Some(path) => layers.read_file(&path),
        None => {
            let path = options.working_dir.unwrap_or_default().join(DEFAULT_FILE);
            if path.exists() {
                layers.read_file(&path);
            }
        }
    }
    for (name, value) in &options.env {
        layers.read_env(name, value);
    }
    for (key, value) in &options.overrides {
        layers.set_text(key, value, Source::Flag(key.clone()));
    }
    layers.read_secret_files();
    layers.finish()
}

impl Layers {
    fn problem(&mut self, key: &str, source: Source, message: impl Into<String>) {
        self.problems.push(ConfigProblem {
            key: key.to_owned(),
            source: Some(source),
            message: message.into(),
        });
    }

    fn read_file(&mut self, path: &Path) {
        let source = Source::File(path.to_owned());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.problem("", source, format!("cannot be read: {error}")),
        };
        match text.parse::<Table>() {
            Ok(table) => self.merge_table("", table, &source),
            // Only the message and the line: the rendered error quotes the line, which may be a
            // secret.
            Err(error) => {
                let line = error
                    .span()
                    .and_then(|span| text.get(..span.start))
                    .map_or(1, |before| before.matches('\n').count() + 1);
                let message = format!("is not TOML at line {line}: {}", error.message());
                self.problem("", source, message);
            }
        }
    }

    fn merge_table(&mut self, prefix: &str, table: Table, source: &Source) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match (value, setting(&key)) {
                (Value::Table(inner), None) if is_section(&key) => {
                    self.merge_table(&format!("{key}."), inner, source);
                }
                (value, Some(setting)) => {
                    self.values.insert(setting.key, (value, source.clone()));
                }
                _ => self.no_such_key(&key, source.clone()),
            }
        }
    }

    fn read_env(&mut self, name: &str, value: &str) {
        if name == ENV_CONFIG_FILE || name.starts_with(ENV_TEST_PREFIX) {
            return;
        }
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        self.set_text(&key, value, Source::Env(name.to_owned()));
    }

    /// Sets a key from text, read as what the key needs. So `12345` is a fine signing key and
    /// `300` a fine rate.
    fn set_text(&mut self, key: &str, text: &str, source: Source) {
        let Some(setting) = setting(key) else { return self.no_such_key(key, source) };
        match setting.kind.parse(text) {
            Ok(value) => {
                self.values.insert(setting.key, (value, source));
            }
            Err(message) => self.problem(key, source, message),
        }
    }

    /// Says which key may have been meant. One underscore in place of two in a variable's name is the
    /// commonest slip.
    fn no_such_key(&mut self, key: &str, source: Source) {
        if is_section(key) {
            return self.problem(key, source, "is a section, not a value");
        }
        let plain = |key: &str| key.replace('.', "_");
        let distance = |name: &str| strsim::osa_distance(&plain(name), &plain(key));
        let nearest = settings().map(|setting| setting.key).min_by_key(|name| distance(name));
        let message = match (nearest.filter(|name| distance(name) <= 2), &source) {
            (None, _) => "there is no such key".to_owned(),
            (Some(name), Source::Env(_)) => {
                let variable = name.to_ascii_uppercase().replace('.', "__");
                format!("there is no such key; did you mean {name}, {ENV_PREFIX}{variable}?")
            }
            (Some(name), _) => format!("there is no such key; did you mean {name}?"),
        };
        self.problem(key, source, message);
    }

    /// A secret `x` may be given as `x_file` instead.
    fn read_secret_files(&mut self) {
        for secret in settings().filter(|setting| setting.secret) {
            let Some((Value::String(path), source)) =
                self.values.get(format!("{}_file", secret.key).as_str()).cloned()
            else {
                continue;
            };
            let key = secret.key;
            let problem = if let Some((_, other)) = self.values.get(key) {
                format!("{key} is given too (from {other}); give one of the two")
            } else {
                match std::fs::read_to_string(&path) {
                    Ok(text) if text.trim().is_empty() => format!("{path} is empty"),
                    Ok(text) => {
                        let value = Value::String(text.trim().to_owned());
                        // The file is where the value came from, for messages about its length.
                        self.values.insert(key, (value, Source::File(path.into())));
                        continue;
                    }
                    Err(error) => format!("{path} cannot be read: {error}"),
                }
            };
            self.problem(&format!("{key}_file"), source, problem);
        }
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        let mut config = Config::default();
        let mut sources = BTreeMap::new();
        for Setting { key, set, secret, .. } in settings() {
            let Some((value, source)) = self.values.remove(key) else { continue };
            if let Err(wrong) = set(&mut config, value) {
                let message = if *secret {
                    // The message would quote the value.
                    "has the wrong type; a string is needed".to_owned()
                } else {
                    wrong.message
                };
                self.problem(&format!("{key}{}", wrong.index), source.clone(), message);
            }
            sources.insert(*key, source);
        }
        if self.problems.is_empty() {
            Ok(Loaded { config, sources })
        } else {
            Err(ConfigError { problems: self.problems })
        }
    }
}

fn is_section(key: &str) -> bool {
    !key.is_empty() && SECTIONS.iter().any(|section| section.name() == key)
}
