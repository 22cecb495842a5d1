//! How a table of keys is defined once: its documentation, its reading and its comparison come from one place.

use super::finding::Finding;
use super::suggestion::nearest;
use super::value::Value;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What happens when a key is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// There is no configuration without it.
    Required,
    /// This TOML value stands for it.
    Default(&'static str),
    /// Something that is no constant stands for it; in words.
    Otherwise(&'static str),
}

/// When a changed value comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakesEffect {
    /// On SIGHUP.
    OnReload,
    /// When the daemon is started again.
    OnRestart,
}

/// A key as documentation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyDoc {
    /// The key.
    pub(crate) key: &'static str,
    /// Meaning and consequence, line by line.
    pub(crate) doc: &'static [&'static str],
    /// Kind and bounds.
    pub(crate) expected: fn() -> String,
    /// What stands for it.
    pub(crate) presence: Presence,
    /// When a change counts.
    pub(crate) takes_effect: TakesEffect,
}

/// A table as documentation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableDoc {
    /// Its header, with brackets.
    pub(crate) header: &'static str,
    /// What it is for, line by line.
    pub(crate) doc: &'static [&'static str],
    /// Its keys.
    pub(crate) keys: &'static [KeyDoc],
}

/// A value and where it was written; two are equal if their values are.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    /// The value.
    pub(crate) value: T,
    /// Bytes of the file, or of its table if a default stands for it.
    pub(crate) at: Range<usize>,
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Table and key.
    pub(crate) key: String,
    /// When it counts.
    pub(crate) takes_effect: TakesEffect,
}

/// Reads the keys of one table and collects what is wrong with them.
pub(super) struct TableReader<'a, 'i> {
    table: &'a DeTable<'i>,
    at: Range<usize>,
    header: &'static str,
    findings: &'a mut Vec<Finding>,
}

impl<'a, 'i> TableReader<'a, 'i> {
    /// A reader of `table`; reports keys that `doc` does not know at once.
    pub(super) fn new(
        doc: &TableDoc,
        table: &'a DeTable<'i>,
        at: Range<usize>,
        findings: &'a mut Vec<Finding>,
    ) -> Self {
        report_unknown(table, &doc.keys.iter().map(|key| key.key), doc.header, findings);
        Self { table, at, header: doc.header, findings }
    }

    /// The value of a key or what stands for it; `None` if that is nothing, or if it is wrong.
    pub(super) fn take<T: Value>(&mut self, doc: &KeyDoc) -> Option<Located<T>> {
        match (self.table.get(doc.key), doc.presence) {
            (Some(value), _) => match T::read(value) {
                Ok(read) => Some(Located { value: read, at: value.span() }),
                Err(findings) => {
                    let prefix = format!("{} `{}`", self.header, doc.key);
                    self.findings.extend(findings.into_iter().map(|finding| Finding {
                        problem: format!("{prefix}: {}", finding.problem),
                        ..finding
                    }));
                    None
                }
            },
            (None, Presence::Default(text)) => Some(Located { value: constant(text), at: self.at.clone() }),
            (None, Presence::Otherwise(_)) => None,
            (None, Presence::Required) => {
                let problem = format!("{} has no `{}`", self.header, doc.key);
                let instead = format!("add `{} = …`: {}", doc.key, (doc.expected)());
                self.findings.push(Finding::new(self.at.clone(), problem, instead));
                None
            }
        }
    }
}

/// Reports every key of `table` that is not among `known`.
pub(super) fn report_unknown(
    table: &DeTable<'_>,
    known: &(impl Iterator<Item = &'static str> + Clone),
    header: &str,
    findings: &mut Vec<Finding>,
) {
    for (key, _) in table {
        let word = key.get_ref().as_ref();
        if known.clone().any(|candidate| candidate == word) {
            continue;
        }
        let all = known.clone().collect::<Vec<_>>().join(", ");
        let instead = nearest(word, known.clone())
            .map_or_else(|| format!("the keys are {all}"), |candidate| format!("write `{candidate}`"));
        findings.push(Finding::new(key.span(), format!("there is no key `{word}` in {header}"), instead));
    }
}

/// The value of a default. Its text is part of the program; a test reads them all.
pub(super) fn constant<T: Value>(text: &'static str) -> T {
    let value: Spanned<DeValue<'_>> = DeValue::parse(text).expect("a default is TOML");
    T::read(&value).expect("a default is a value of its key")
}

/// Defines a table: a struct of optional located values, its documentation, its reader, its comparison.
macro_rules! table {
    (
        $(#[doc = $about:literal])*
        $name:ident $header:literal {
            $(
                $(#[doc = $doc:literal])*
                $field:ident: $ty:ty = $key:literal, $presence:expr, $takes_effect:ident;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $name {
            $(
                $(#[doc = $doc])*
                pub(super) $field: Option<$crate::config::schema::Located<$ty>>,
            )*
        }

        impl $name {
            /// What the table is for, and its keys.
            pub(super) const DOC: $crate::config::schema::TableDoc = $crate::config::schema::TableDoc {
                header: $header,
                doc: &[$($about),*],
                keys: &[$(
                    $crate::config::schema::KeyDoc {
                        key: $key,
                        doc: &[$($doc),*],
                        expected: <$ty as $crate::config::value::Value>::expected,
                        presence: $presence,
                        takes_effect: $crate::config::schema::TakesEffect::$takes_effect,
                    },
                )*],
            };

            /// Reads the table; what is wrong goes to `findings` and leaves its key empty.
            pub(super) fn read(
                table: &toml::de::DeTable<'_>,
                at: std::ops::Range<usize>,
                findings: &mut Vec<$crate::config::finding::Finding>,
            ) -> Self {
                let mut reader = $crate::config::schema::TableReader::new(&Self::DOC, table, at, findings);
                let mut docs = Self::DOC.keys.iter();
                Self {
                    $($field: docs.next().and_then(|doc| reader.take::<$ty>(doc)),)*
                }
            }

            /// The keys whose values differ from those of `other`.
            pub(super) fn changes(&self, other: &Self) -> Vec<$crate::config::schema::Change> {
                let mut changes = Vec::new();
                $(
                    if self.$field != other.$field {
                        changes.push($crate::config::schema::Change {
                            key: format!("{} {}", $header, $key),
                            takes_effect: $crate::config::schema::TakesEffect::$takes_effect,
                        });
                    }
                )*
                changes
            }
        }
    };
}
pub(super) use table;
