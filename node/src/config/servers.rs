//! The list of servers without `dpr` behind a service.

use super::finding::Finding;
use super::keys::ServerKeys;
use super::schema::Located;
use super::value::{Value, wrong_kind};
use toml::Spanned;
use toml::de::DeValue;

/// Servers of one service; up to 256.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Servers(pub(super) Vec<Located<ServerKeys>>);

/// Servers behind one service: each is probed every second.
const SERVERS_MAX: usize = 256;

impl Value for Servers {
    fn expected() -> String {
        "tables `[[service.server]]`".to_owned()
    }

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Finding>> {
        let Some(items) = value.get_ref().as_array() else { return wrong_kind(value) };
        let (mut servers, mut findings) = (Vec::new(), Vec::new());
        for item in items.iter().take(SERVERS_MAX) {
            match item.get_ref() {
                DeValue::Table(table) => servers.push(Located {
                    value: ServerKeys::read(table, item.span(), &mut findings),
                    at: item.span(),
                }),
                _ => findings.push(Finding::new(
                    item.span(),
                    "a server is a table",
                    "write `[[service.server]]`",
                )),
            }
        }
        if let Some(item) = items.get(SERVERS_MAX) {
            let problem = format!("{} servers are too many for one service", items.len());
            findings.push(Finding::new(item.span(), problem, format!("write at most {SERVERS_MAX}")));
        }
        if findings.is_empty() { Ok(Self(servers)) } else { Err(findings) }
    }
}
