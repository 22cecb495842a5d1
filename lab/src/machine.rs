//! A host of the lab: a network namespace with one interface on the switch.

use crate::error::LabError;
use crate::ip_version::{IpVersion, NETWORK};
use crate::ipv6_settings::{disable_ipv6, quiet_ipv6};
use crate::lab::MTU_ETHERNET;
use crate::process::Process;
use crate::routers;
use crate::source_filter::SourceFilter;
use crate::switch::{Port, Switch};
use crate::vlan::VlanTags;
use crate::wait::wait_until;
use dpr_host::{AddressOptions, IpPrefix, NetNamespace, Netlink, Offload, Offloads, Route};
use dpr_model::MacAddress;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The name of every machine's interface.
pub const INTERFACE: &str = "eth0";

/// How long the kernel may take to notice a cable; it does so within milliseconds, unless the machine is very busy.
const CARRIER_LIMIT: Duration = Duration::from_secs(10);

/// A host of the lab; dropping it removes it.
#[derive(Debug)]
pub struct Machine {
    name: String,
    addresses: Vec<IpAddr>,
    mac: MacAddress,
    namespace: NetNamespace,
    /// Routers between it and the switch.
    routers: Vec<NetNamespace>,
    switch: Arc<Switch>,
    port: Port,
}

/// What a new machine is to be.
#[derive(Clone, Debug)]
pub(crate) struct MachinePlan {
    pub(crate) name: String,
    /// What its addresses end in.
    pub(crate) number: u8,
    /// IP versions that it speaks, at least one.
    pub(crate) versions: Vec<IpVersion>,
    /// Of its interface and of the switch's port, bytes.
    pub(crate) mtu: u32,
}

impl Machine {
    pub(crate) fn new(switch: &Arc<Switch>, plan: &MachinePlan) -> Result<Self, LabError> {
        let doing = format!("make machine {}", plan.name);
        let namespace = NetNamespace::create().map_err(LabError::host(&doing))?;
        let [a, b, c, _] = NETWORK.octets();
        let mac = MacAddress([0x02, 0x00, a, b, c, plan.number]);
        let port = switch.attach(plan.number, namespace.as_fd(), mac, plan.mtu)?;
        let machine = Self {
            name: plan.name.clone(),
            addresses: plan.versions.iter().map(|version| version.address_of(plan.number)).collect(),
            mac,
            namespace,
            routers: Vec::new(),
            switch: Arc::clone(switch),
            port,
        };
        machine.exec(|| machine.configure(plan.mtu))??;
        Ok(machine)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of its interface; of the IPv4 one if it has both.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }

    /// The address of its interface in one IP version, if it speaks that.
    pub fn address_in(&self, version: IpVersion) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| IpVersion::of(*address) == version)
    }

    /// Its IPv4 address, for those who read and forge IPv4 packets.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }

    /// The hardware address of its interface.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// The namespace, for tools that enter it themselves.
    pub fn namespace(&self) -> &NetNamespace {
        &self.namespace
    }

    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }

    pub(crate) fn port(&self) -> &Port {
        &self.port
    }

    /// Puts two routers between this machine and the switch. The link between the two takes packets of at most `mtu`
    /// bytes, which neither its own link nor the switch shows: path MTU discovery has to find it. Its addresses change;
    /// what it captures and what cuts its link stays at the switch.
    ///
    /// Everybody else needs the returned route to it.
    ///
    /// # Errors
    ///
    /// The host refuses.
    pub fn move_behind_routers(&mut self, mtu: u32) -> Result<Vec<Route>, LabError> {
        let versions: Vec<IpVersion> = self.addresses.iter().map(|address| IpVersion::of(*address)).collect();
        let behind = routers::put_behind(&self.namespace, &versions, mtu)?;
        let to_here = |gateway: &IpAddr| Route::via(routers::network_of(IpVersion::of(*gateway)), *gateway);
        let routes = self.addresses.iter().map(to_here).collect();
        let near = std::mem::replace(&mut self.namespace, behind.machine);
        self.routers = vec![near, behind.far];
        self.addresses = behind.addresses;
        Ok(routes)
    }

    /// Runs `work` inside the machine and waits for it. Sockets made there stay there, wherever they are used.
    ///
    /// # Errors
    ///
    /// No thread could be started. A panic of `work` goes on in the caller.
    pub fn exec<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        self.namespace.enter(work).map_err(LabError::host(&format!("enter {}", self.name)))
    }

    /// Runs `work` inside the machine on a thread of its own.
    ///
    /// # Errors
    ///
    /// No thread could be started.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, LabError> {
        let doing = || format!("start thread {name} in {}", self.name);
        let namespace = self.handle()?;
        std::thread::Builder::new()
            .name(format!("{}-{name}", self.name))
            .spawn(move || {
                enter(&namespace);
                drop(namespace);
                work()
            })
            .map_err(LabError::io(doing))
    }

    /// Starts a program inside the machine. It dies with the returned value, and with this process.
    ///
    /// # Errors
    ///
    /// It could not be started.
    pub fn spawn(&self, command: Command) -> Result<Process, LabError> {
        let name = format!("{} on {}", command.get_program().to_string_lossy(), self.name);
        Process::spawn(command, self.handle()?, name)
    }

    /// Runs a program inside the machine and waits for its end; what it writes comes with the result.
    ///
    /// # Errors
    ///
    /// It could not be started.
    pub fn run(&self, mut command: Command) -> Result<Output, LabError> {
        let doing = format!("run {} on {}", command.get_program().to_string_lossy(), self.name);
        command.stdin(Stdio::null());
        self.exec(move || command.output())?.map_err(LabError::io(move || doing.clone()))
    }

    /// Makes it finish checksums and cut segments before its interface takes them, as the driver of a real one does. A
    /// program at the other end of a veth pair would else be shown packets that nobody has finished.
    ///
    /// # Errors
    ///
    /// The host refuses.
    pub fn finish_checksums(&self) -> Result<(), LabError> {
        self.offload_checksums(false)
    }

    /// Lets its interface take packets without checksums and segments that are not cut yet, as a machine does whose network
    /// card finishes them.
    ///
    /// # Errors
    ///
    /// The host refuses.
    pub fn leave_checksums(&self) -> Result<(), LabError> {
        self.offload_checksums(true)
    }

    fn offload_checksums(&self, on: bool) -> Result<(), LabError> {
        let doing = format!("turn checksum offload {} on {}", if on { "on" } else { "off" }, self.name);
        self.exec(|| Offloads::set(INTERFACE, Offload::TxChecksum, on))?.map_err(LabError::host(&doing))
    }

    /// Makes the switch take what a program in its interface's driver sends. The other end of a veth pair takes it only with
    /// GRO or a program of its own (`veth_xdp_xmit` in `drivers/net/veth.c`).
    ///
    /// # Errors
    ///
    /// The host refuses.
    pub fn send_from_driver(&self) -> Result<(), LabError> {
        self.switch.coalesce(&self.port)
    }

    /// Cuts its link: from now on no frame arrives or leaves.
    ///
    /// # Errors
    ///
    /// The switch's port could not be taken down.
    pub fn cut(&self) -> Result<(), LabError> {
        self.switch.set_up(&self.port, false)
    }

    /// Mends its link.
    ///
    /// # Errors
    ///
    /// The switch's port could not be brought up.
    pub fn mend(&self) -> Result<(), LabError> {
        self.switch.set_up(&self.port, true)
    }

    /// Lets the switch's end of its cable take packets of at most `mtu` bytes and drop larger ones without a word, as a
    /// misconfigured switch does.
    ///
    /// # Errors
    ///
    /// The switch refuses.
    pub fn narrow_cable(&self, mtu: u32) -> Result<(), LabError> {
        self.switch.set_mtu(&self.port, mtu)
    }

    /// Has its switch port drop what it sends from other addresses than its own, as virtual networks do; until the
    /// returned value is dropped.
    ///
    /// # Errors
    ///
    /// The switch refuses.
    pub fn filter_sources(&self) -> Result<SourceFilter, LabError> {
        SourceFilter::begin(&self.switch, &self.port, &self.addresses)
    }

    /// Puts it into a VLAN, by one tag or two: `vlans` are their identifiers, the outer one first. Only root can, without a
    /// container; until the returned value is dropped.
    ///
    /// # Errors
    ///
    /// The kernel takes no such program.
    pub fn move_into_vlan(&self, vlans: &[u16]) -> Result<VlanTags, LabError> {
        self.exec(|| VlanTags::begin(vlans))?
    }

    /// Takes its interface away, and after a while gives it another one with the same name and addresses, as when a driver
    /// is loaded again. Routes beyond its own network are lost.
    pub(crate) fn replace_interface(&mut self, gone: Duration) -> Result<(), LabError> {
        let doing = format!("look at the interface of {}", self.name);
        let link = self.exec(|| Netlink::open()?.link_by_name(INTERFACE))?.map_err(LabError::host(&doing))?;
        let mtu = link.map_or(MTU_ETHERNET, |link| link.mtu);
        self.unplug();
        std::thread::sleep(gone);
        let [.., number] = self.mac.0;
        self.port = self.switch.attach(number, self.namespace.as_fd(), self.mac, mtu)?;
        self.exec(|| self.configure(mtu))?
    }

    /// Removes its cable, as dropping it would.
    pub(crate) fn unplug(&self) {
        self.switch.detach(&self.port);
    }

    fn handle(&self) -> Result<OwnedFd, LabError> {
        let doing = || format!("keep the namespace of {}", self.name);
        self.namespace.as_fd().try_clone_to_owned().map_err(LabError::io(doing))
    }

    fn configure(&self, mtu: u32) -> Result<(), LabError> {
        let doing = format!("configure {}", self.name);
        if self.address_in(IpVersion::V6).is_some() {
            quiet_ipv6()?;
        } else {
            disable_ipv6()?;
        }
        let mut netlink = Netlink::open().map_err(LabError::host(&doing))?;
        for name in ["lo", INTERFACE] {
            let link = netlink
                .link_by_name(name)
                .map_err(LabError::host(&doing))?
                .expect("a namespace has lo, and the switch's cable ends in eth0");
            if name == INTERFACE {
                netlink.set_mtu(link.index, mtu).map_err(LabError::host(&doing))?;
                for address in &self.addresses {
                    let prefix = IpPrefix::new(*address, IpVersion::of(*address).prefix_length())
                        .expect("the lab's prefixes are shorter than its addresses");
                    let options =
                        AddressOptions { skip_duplicate_detection: true, ..AddressOptions::default() };
                    netlink.add_address(link.index, prefix, options).map_err(LabError::host(&doing))?;
                }
            }
            netlink.set_up(link.index).map_err(LabError::host(&doing))?;
        }
        wait_for_carrier(&mut netlink)
    }
}

/// The kernel notices a cable a moment after both ends are up; a [`HostState`](crate::HostState) taken before would
/// differ from all later ones.
fn wait_for_carrier(netlink: &mut Netlink) -> Result<(), LabError> {
    wait_until("the interface to run", CARRIER_LIMIT, || match netlink.link_by_name(INTERFACE) {
        Ok(Some(link)) if link.running => Ok(()),
        state => Err(format!("{state:?}")),
    })
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.unplug();
    }
}

fn enter(namespace: &impl AsFd) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("the lab made this namespace in its own user namespace, so it may enter it");
}
