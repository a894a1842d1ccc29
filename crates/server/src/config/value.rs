//! Values of settings: their kinds, how they are read, and secrets.
//!
//! What does not belong here: which settings there are (`table`).

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use toml::{Table, Value};

/// What a value looks like, and so how the text of an environment variable or flag is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    File,
    Address,
    Integer,
    Float,
    Bool,
    /// A TOML array of strings, or strings separated by commas.
    List,
    /// One of these words; each with what it means.
    Choice(&'static [(&'static str, &'static str)]),
}

impl Kind {
    /// The value that a text says.
    ///
    /// # Errors
    /// What the text should be; it quotes the text.
    pub(super) fn parse(self, text: &str) -> Result<Value, String> {
        let trimmed = text.trim();
        match self {
            Self::Text | Self::File | Self::Address | Self::Choice(_) => {
                Ok(Value::String(text.to_owned()))
            }
            Self::Integer => trimmed
                .replace('_', "")
                .parse()
                .map(Value::Integer)
                .map_err(|_| format!("must be a whole number, not {text:?}")),
            Self::Float => trimmed
                .parse()
                .map(Value::Float)
                .map_err(|_| format!("must be a number, not {text:?}")),
            Self::Bool => trimmed
                .parse()
                .map(Value::Boolean)
                .map_err(|_| format!("must be true or false, not {text:?}")),
            Self::List => Ok(parse_list(trimmed)),
        }
    }
}

fn parse_list(text: &str) -> Value {
    if text.starts_with('[')
        && let Ok(mut table) = format!("v = {text}").parse::<Table>()
        && let Some(value) = table.remove("v")
    {
        return value;
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
}

/// Why a value cannot be that of a setting. The message may quote the value.
pub(super) struct WrongType {
    /// The element of a list, such as `[0]`.
    pub(super) index: String,
    pub(super) message: String,
}

/// Puts a value into a field.
pub(super) fn assign<T: DeserializeOwned>(field: &mut T, value: Value) -> Result<(), WrongType> {
    *field = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        WrongType {
            index: if path.starts_with('[') { path } else { String::new() },
            message: error.inner().message().trim().to_owned(),
        }
    })?;
    Ok(())
}

/// What the type of a field says of its setting.
pub(super) trait Typed {
    const KIND: Kind;
    const SECRET: bool = false;
}

/// A field that may have a range.
pub(super) trait Number {
    type Of: PartialOrd + Display;
    fn number(&self) -> Option<Self::Of>;
}

macro_rules! kinds {
    ($($kind:ident: $($type:ty),+;)+) => {$($(
        impl Typed for $type {
            const KIND: Kind = Kind::$kind;
        }
    )+)+};
}

macro_rules! numbers {
    ($($kind:ident: $($type:ty),+;)+) => {
        kinds! { $($kind: $($type),+;)+ }
        $($(
            impl Number for $type {
                type Of = $type;
                fn number(&self) -> Option<$type> {
                    Some(*self)
                }
            }
        )+)+
    };
}

kinds! {
    Text: String;
    File: PathBuf;
    Address: SocketAddr;
    Bool: bool;
}

numbers! {
    Integer: u16, u32, u64, usize;
    Float: f64;
}

impl Typed for Secret {
    const KIND: Kind = Kind::Text;
    const SECRET: bool = true;
}

impl<T: Typed> Typed for Vec<T> {
    const KIND: Kind = Kind::List;
    const SECRET: bool = T::SECRET;
}

impl<T: Typed> Typed for Option<T> {
    const KIND: Kind = T::KIND;
    const SECRET: bool = T::SECRET;
}

impl<T: Number> Number for Option<T> {
    type Of = T::Of;
    fn number(&self) -> Option<T::Of> {
        self.as_ref()?.number()
    }
}

/// A value that must not reach a log, an error or `config show`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(<redacted>)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<redacted>")
    }
}
