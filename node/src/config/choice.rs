//! Words that mean something in a configuration file.

pub(crate) use dpr_director::PolicyKind as Policy;
use dpr_model::{DeliveryMode, Ingress, PartitionBy, Protocol};
pub(crate) use dpr_ownership::agreement::GiveBack;

/// An enumeration as a kind of value, with the word for each variant.
macro_rules! choice {
    ($name:ident { $($word:literal => $variant:expr),* $(,)? }) => {
        impl $crate::config::value::Value for $name {
            fn expected() -> String {
                let words: &[&str] = &[$($word),*];
                words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(" or ")
            }

            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
            ) -> Result<Self, Vec<$crate::config::finding::Finding>> {
                let problem = match value.get_ref().as_str() {
                    $(Some($word) => return Ok($variant),)*
                    Some(word) => format!("{word:?} is not one of the words that mean something here"),
                    None => format!("no {} belongs here", value.get_ref().type_str()),
                };
                let instead = format!("write {}", <Self as $crate::config::value::Value>::expected());
                Err(vec![$crate::config::finding::Finding::new(value.span(), problem, instead)])
            }
        }
    };
}

choice!(Policy {
    "local-estimates" => Self::LocalEstimates,
    "lightest" => Self::Lightest,
    "inverse" => Self::Inverse,
    "round-robin" => Self::RoundRobin,
    "stateless" => Self::Stateless,
});

choice!(GiveBack { "auto" => Self::Auto, "manual" => Self::Manual });

choice!(Protocol { "tcp" => Self::Tcp, "udp" => Self::Udp });

/// How a director hands packets to a real server; [`NatKind`] says which of two translations `nat` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Network address translation.
    Nat,
    /// Direct routing.
    Dr,
}

choice!(Method { "ipip" => Self::Ipip, "gue" => Self::Gue, "nat" => Self::Nat, "dr" => Self::Dr });

/// What network address translation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NatKind {
    /// Both ends.
    Full,
    /// The server's end only.
    Half,
}

choice!(NatKind { "full" => Self::Full, "half" => Self::Half });

choice!(DeliveryMode { "translate" => Self::Translate, "alias" => Self::Alias });

/// Which data plane runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataplaneKind {
    /// The best one that the host allows.
    Auto,
    /// Packet sockets.
    Userspace,
    /// Programs in the kernel, in front of packet sockets.
    Xdp,
}

choice!(DataplaneKind {
    "auto" => Self::Auto,
    "userspace" => Self::Userspace,
    "xdp" => Self::Xdp,
});

/// Where the kernel runs the program for incoming packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgramMode {
    /// In the driver where that is possible, behind it otherwise.
    Auto,
    /// In the driver.
    Native,
    /// Behind the driver.
    Generic,
}

choice!(ProgramMode {
    "auto" => Self::Auto,
    "native" => Self::Native,
    "generic" => Self::Generic,
});

choice!(Ingress {
    "shared-mac" => Self::SharedMac,
    "arp-owner" => Self::ArpOwner,
    "routed" => Self::Routed,
});

choice!(PartitionBy {
    "source-address-and-port" => Self::SourceAddressAndPort,
    "source-address" => Self::SourceAddress,
    "destination-address" => Self::DestinationAddress,
    "source-port" => Self::SourcePort,
    "destination-port" => Self::DestinationPort,
    "all" => Self::All,
});
