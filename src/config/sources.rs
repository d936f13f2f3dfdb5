//! Where settings come from, and which source wins: flag, then environment, then file, then
//! default.

use super::{ConfigError, Settings};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The prefix of the environment variables.
const PREFIX: &str = "RINGDOVE_";
/// The variable that names the file, as `--config` does.
pub(super) const CONFIG_VARIABLE: &str = "RINGDOVE_CONFIG";
/// The variable that holds the cluster's secret itself.
pub(super) const SECRET_VARIABLE: &str = "RINGDOVE_SECRET";

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A command-line flag.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A line of the configuration file, counted from 1.
    Line(PathBuf, usize),
    /// Nobody: the default.
    Default(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "--{flag}"),
            Origin::Variable(variable) => f.write_str(variable),
            Origin::Line(path, line) => write!(f, "{}, line {line}", path.display()),
            Origin::Default(key) => write!(f, "{key} (by default)"),
        }
    }
}

/// All sources merged, remembering who said what.
pub(super) struct Sources {
    /// The outcome.
    pub settings: Settings,
    /// `RINGDOVE_SECRET`, if set.
    pub secret: Option<String>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Sources {
    /// Merges the flags over the environment over the file.
    pub fn merge(
        config: Option<PathBuf>,
        flags: Settings,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Sources, ConfigError> {
        let mut origins = BTreeMap::new();
        let variables = Variables::read(environment)?;
        let file = match config.or(variables.config) {
            Some(path) => read_file(&path, &mut origins)?,
            None => Settings::default(),
        };
        for key in variables.settings.keys_set() {
            origins.insert(key, Origin::Variable(variable_of(key)));
        }
        for key in flags.keys_set() {
            origins.insert(key, Origin::Flag(spelled(key)));
        }
        if variables.secret.is_some() {
            origins.entry("secret_file").or_insert(Origin::Variable(SECRET_VARIABLE.to_owned()));
        }
        let settings = flags.or(variables.settings).or(file);
        Ok(Sources { settings, secret: variables.secret, origins })
    }

    /// Who said what `key` is.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or_else(|| Origin::Default(spelled(key)))
    }
}

/// What the environment says.
#[derive(Default)]
struct Variables {
    settings: Settings,
    config: Option<PathBuf>,
    secret: Option<String>,
}

impl Variables {
    fn read(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Variables, ConfigError> {
        let mut variables = Variables::default();
        for (variable, value) in environment {
            let Some(variable) = variable.to_str().filter(|v| v.starts_with(PREFIX)) else { continue };
            let refused = |reason: String| ConfigError::Variable { variable: variable.to_owned(), reason };
            if variable == CONFIG_VARIABLE {
                variables.config = Some(value.into());
                continue;
            }
            let value = value.into_string().map_err(|_| refused("is not UTF-8".to_owned()))?;
            if variable == SECRET_VARIABLE {
                variables.secret = Some(value);
                continue;
            }
            let name = variable[PREFIX.len()..].to_ascii_lowercase();
            let Some(key) = known(&name) else {
                if is_foreign(&name) {
                    continue;
                }
                return Err(refused(unknown("setting", &name)));
            };
            // `RINGDOVE_SEED=a:1,b:2`; no scalar setting's value contains a comma but the log filter's.
            let words: Vec<String> = match key {
                "seed" => value.split(',').map(|word| word.trim().to_owned()).collect(),
                _ => vec![value],
            };
            variables.settings.set(key, &words).map_err(refused)?;
        }
        Ok(variables)
    }
}

/// Variables with our prefix that others set: Kubernetes does for a service called `ringdove` or
/// `ringdove-…`, and test and bench runs have their own.
fn is_foreign(name: &str) -> bool {
    let mut words = name.split('_');
    words.clone().next().is_some_and(|first| matches!(first, "test" | "sim" | "bench" | "fuzz"))
        || words.any(|word| word == "port" || word == "service")
}

/// Reads a TOML file, noting the line of every key.
fn read_file(path: &Path, origins: &mut BTreeMap<&'static str, Origin>) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let refused = |at: usize, reason: String| {
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError::Line {
            path: path.to_owned(),
            line: line_at(&text, at),
            text: text[start..].lines().next().unwrap_or_default().trim_end().to_owned(),
            reason,
        }
    };
    let table = DeTable::parse(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        refused(at, error.message().to_owned())
    })?;

    let mut settings = Settings::default();
    for (name, value) in table.get_ref() {
        let at = name.span().start;
        let name = name.get_ref().as_ref();
        let key = known(&name.replace('-', "_")).ok_or_else(|| refused(at, unknown("key", name)))?;
        if origins.contains_key(key) {
            return Err(refused(at, format!("`{}` is set twice", spelled(key))));
        }
        let words = words(value.get_ref()).map_err(|reason| refused(at, reason))?;
        settings.set(key, &words).map_err(|reason| refused(value.span().start, reason))?;
        origins.insert(key, Origin::Line(path.to_owned(), line_at(&text, at)));
    }
    Ok(settings)
}

/// The scalars of a value, as the words that a flag would have.
fn words(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let word = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string().replace('_', "")),
        DeValue::Float(number) => Ok(number.to_string()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(format!("is of type {}, which no setting has", value.type_str()))
        }
    };
    match value {
        DeValue::Array(items) => items.iter().map(|item| word(item.get_ref())).collect(),
        single => Ok(vec![word(single)?]),
    }
}

fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The key of that name, if there is one.
fn known(name: &str) -> Option<&'static str> {
    Settings::KEYS.iter().copied().find(|key| *key == name)
}

/// The way a key is written in flags and files.
fn spelled(key: &str) -> String {
    key.replace('_', "-")
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase())
}

fn unknown(what: &str, name: &str) -> String {
    let name = spelled(name);
    let nearest = Settings::KEYS
        .iter()
        .map(|key| (edits(&name, &spelled(key)), spelled(key)))
        .min()
        .filter(|(edits, _)| *edits <= 3);
    match nearest {
        Some((_, key)) => format!("unknown {what} `{name}`; did you mean `{key}`?"),
        None => format!("unknown {what} `{name}`; `ringdove node --help` lists them all"),
    }
}

/// The least number of letters to insert, delete or replace to turn `a` into `b` (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance() {
        assert_eq!(edits("max-memory", "max-memory"), 0);
        assert_eq!(edits("max-memry", "max-memory"), 1);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        for name in ["port", "service_host", "port_6379_tcp_addr", "quic_service_port", "test_seed"] {
            assert!(is_foreign(name), "{name}");
        }
        assert!(!is_foreign("max_memry"));
        assert!(!is_foreign("reports"));
    }
}
