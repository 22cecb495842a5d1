//! A lab: the switch, a directory for files, and room for machines.

use crate::error::LabError;
use crate::ip_version::IpVersion;
use crate::machine::{Machine, MachinePlan};
use crate::switch::{Port, Switch};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// An empty network; machines and nodes are made in it. What it holds is removed when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Lab {
    switch: Arc<Switch>,
    directory: Arc<TempDir>,
    versions: Vec<IpVersion>,
}

/// Node `n` has the address 10.77.0.(10 + n), or fd77::(10 + n).
pub(crate) const NODE_NUMBER_BASE: u8 = 10;
/// Client `n` has the address 10.77.0.(100 + n), or fd77::(100 + n).
const CLIENT_NUMBER_BASE: u8 = 100;
/// Service address `n` is 10.77.0.(200 + n); of machines only clients from 100 on would have it.
const SERVICE_NUMBER_BASE: u8 = 200;
const NODES_MAX: u8 = CLIENT_NUMBER_BASE - NODE_NUMBER_BASE;
const CLIENTS_MAX: u8 = 254 - CLIENT_NUMBER_BASE;

/// MTU of Ethernet, bytes.
pub(crate) const MTU_ETHERNET: u32 = 1500;

impl Lab {
    /// Makes the switch of a lab that speaks IPv4. [`crate::enter`] has to have been called before.
    ///
    /// # Errors
    ///
    /// The host refuses namespaces, bridges or a temporary directory.
    pub fn new() -> Result<Self, LabError> {
        Self::speaking(&[IpVersion::V4])
    }

    /// The same with other IP versions, at least one; machines have one address of each.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub fn speaking(versions: &[IpVersion]) -> Result<Self, LabError> {
        let mut versions = versions.to_vec();
        versions.sort_unstable();
        versions.dedup();
        let directory = tempfile::Builder::new()
            .prefix("dpr-lab-")
            .tempdir()
            .map_err(LabError::io(|| "make a temporary directory".to_owned()))?;
        Ok(Self { switch: Arc::new(Switch::new()?), directory: Arc::new(directory), versions })
    }

    /// Where files of the lab may be put; removed with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A service address for node `number` that no machine has: 10.77.0.(200 + number), or fd77::(200 + number).
    pub(crate) fn service_address(number: u8, version: IpVersion) -> IpAddr {
        version.address_of(number.saturating_add(SERVICE_NUMBER_BASE))
    }

    /// The address that client machine `number` has or would have.
    pub fn client_address(number: u8, version: IpVersion) -> IpAddr {
        version.address_of(number.saturating_add(CLIENT_NUMBER_BASE))
    }

    /// Makes client machine `number`, from 1; its addresses end in 100 + number.
    ///
    /// # Errors
    ///
    /// The number is out of range or in use, or the host refuses.
    pub fn client(&self, number: u8) -> Result<Machine, LabError> {
        let number_in_network = within("client", number, CLIENTS_MAX)? + CLIENT_NUMBER_BASE;
        self.machine(format!("c{number}"), number_in_network, MTU_ETHERNET)
    }

    /// Makes the machine of node `number`, from 1; its addresses end in 10 + number.
    pub(crate) fn node_machine(&self, number: u8, mtu: u32) -> Result<Machine, LabError> {
        let number_in_network = within("node", number, NODES_MAX)? + NODE_NUMBER_BASE;
        self.machine(format!("n{number}"), number_in_network, mtu)
    }

    fn machine(&self, name: String, number: u8, mtu: u32) -> Result<Machine, LabError> {
        Machine::new(&self.switch, &MachinePlan { name, number, versions: self.versions.clone(), mtu })
    }

    /// Parts the network: machines of one group reach each other only. Machines in no group stay with the first one.
    ///
    /// # Errors
    ///
    /// The switch refuses.
    pub fn partition(&self, groups: &[&[&Machine]]) -> Result<(), LabError> {
        let Some((first, others)) = groups.split_first() else { return Ok(()) };
        self.switch.reunite(&ports(first))?;
        for (island, group) in others.iter().enumerate() {
            self.switch.separate(island + 1, &ports(group))?;
        }
        Ok(())
    }

    /// Keeps these machines from each other and from nobody else, or no longer: a node and clients, as if the network between
    /// them were dead and the one between nodes alive.
    ///
    /// # Errors
    ///
    /// The switch refuses.
    pub fn isolate(&self, machines: &[&Machine], isolated: bool) -> Result<(), LabError> {
        machines.iter().try_for_each(|machine| self.switch.set_isolated(machine.port(), isolated))
    }

    /// Joins what was parted.
    ///
    /// # Errors
    ///
    /// The switch refuses.
    pub fn heal(&self, machines: &[&Machine]) -> Result<(), LabError> {
        self.switch.reunite(&ports(machines))
    }
}

fn ports<'a>(machines: &[&'a Machine]) -> Vec<&'a Port> {
    machines.iter().map(|machine| machine.port()).collect()
}

fn within(what: &'static str, number: u8, max: u8) -> Result<u8, LabError> {
    if (1..=max).contains(&number) { Ok(number) } else { Err(LabError::OutOfRange { what, number, max }) }
}
