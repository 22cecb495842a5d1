//! Kinds of values that a configuration file may hold: each says what it accepts and builds nothing else.

use super::finding::Finding;
use super::suggestion::nearest;
use dpr_model::Metric;
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::DeValue;

/// A kind of value: what may be written, and how it is read.
pub(crate) trait Value: Sized {
    /// What may be written, for people.
    fn expected() -> String;

    /// The value, or everything that is wrong with it.
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>>;
}

pub(super) fn wrong<T>(
    value: &Spanned<DeValue<'_>>,
    problem: impl Into<String>,
    instead: impl Into<String>,
) -> Result<T, Vec<Finding>> {
    Err(vec![Finding::new(value.span(), problem, instead)])
}

pub(super) fn wrong_kind<T: Value>(value: &Spanned<DeValue<'_>>) -> Result<T, Vec<Finding>> {
    wrong(
        value,
        format!("no {} belongs here", value.get_ref().type_str()),
        format!("write {}", T::expected()),
    )
}

/// An integer between bounds that it carries in its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    /// The number, as a type that holds every number up to `MAX`.
    pub(crate) fn get<T: TryFrom<u64>>(self) -> T {
        T::try_from(self.0).ok().expect("the bounds of a key fit the type that it is used as")
    }
}

impl<const MIN: u64, const MAX: u64> Value for Bounded<MIN, MAX> {
    fn expected() -> String {
        format!("an integer from {MIN} to {MAX}")
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(integer) = value.get_ref().as_integer() else { return wrong_kind(value) };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => wrong(value, format!("{integer} is out of range"), format!("write {}", Self::expected())),
        }
    }
}

impl Value for bool {
    fn expected() -> String {
        "`true` or `false`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        value.get_ref().as_bool().map_or_else(|| wrong_kind(value), Ok)
    }
}

/// A word of 1 to `MAX` bytes, without spaces, slashes and control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word<const MAX: usize>(String);

/// A name for people; a load report carries 63 bytes.
pub(crate) type Name = Word<63>;

/// A network interface's name: `IFNAMSIZ` of linux/if.h without its final zero.
pub(crate) type InterfaceName = Word<15>;

impl<const MAX: usize> Word<MAX> {
    /// The word, if `text` is one.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= MAX;
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        (fits && !text.contains(forbidden)).then(|| Self(text.to_owned()))
    }

    /// Its text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Value for Word<MAX> {
    fn expected() -> String {
        format!("a string of 1 to {MAX} bytes without spaces and slashes")
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        Self::new(text).map_or_else(
            || wrong(value, format!("{text:?} does not fit"), format!("write {}", Self::expected())),
            Ok,
        )
    }
}

/// Directives of the log filter, as `tracing_subscriber::EnvFilter` reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFilter(String);

impl LogFilter {
    /// Its text, which the filter is known to accept.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for LogFilter {
    fn expected() -> String {
        "`\"error\"`, `\"warn\"`, `\"info\"`, `\"debug\"`, `\"trace\"`, or filter directives such as \
         `\"info,dpr::dataplane=debug\"`"
            .to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => wrong(
                value,
                format!("{text:?} is no log filter: {error}"),
                format!("write {}", Self::expected()),
            ),
        }
    }
}

impl Value for String {
    fn expected() -> String {
        "a string".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        value.get_ref().as_str().map_or_else(|| wrong_kind(value), |text| Ok(text.to_owned()))
    }
}

impl Value for PathBuf {
    fn expected() -> String {
        "a path".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(text) = value.get_ref().as_str() else { return wrong_kind(value) };
        if text.is_empty() || text.contains('\0') {
            return wrong(value, format!("{text:?} is no path"), "write a path such as `\"/srv/www\"`");
        }
        Ok(Self::from(text))
    }
}

/// How much each metric counts in the load index; at least one of them counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metrics(pub(crate) BTreeMap<Metric, u16>);

impl Value for Metrics {
    fn expected() -> String {
        "a table of metrics with weights from 0 to 1000 such as `{ cpu = 2, connections = 1 }`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(table) = value.get_ref().as_table() else { return wrong_kind(value) };
        let (mut weights, mut findings) = (BTreeMap::new(), Vec::new());
        for (key, weight) in table {
            let word = key.get_ref().as_ref();
            match Metric::ALL.into_iter().find(|metric| metric.label() == word) {
                None => findings.push(unknown_metric(key.span(), word)),
                Some(metric) => match Bounded::<0, 1000>::read(weight) {
                    Ok(weight) => drop(weights.insert(metric, weight.get())),
                    Err(more) => findings.extend(more),
                },
            }
        }
        if findings.is_empty() && weights.values().all(|&weight| weight == 0) {
            return wrong(
                value,
                "no metric counts, so every node would look idle",
                "give a metric a weight above 0",
            );
        }
        if findings.is_empty() { Ok(Self(weights)) } else { Err(findings) }
    }
}

fn unknown_metric(at: std::ops::Range<usize>, word: &str) -> Finding {
    let labels = Metric::ALL.map(Metric::label);
    let instead = nearest(word, labels)
        .map_or_else(|| format!("the metrics are {}", labels.join(", ")), |label| format!("write `{label}`"));
    Finding::new(at, format!("there is no metric `{word}`"), instead)
}
