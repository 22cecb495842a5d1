//! How the programs see a service.

use crate::abi::Method;
use dpr_director::ServiceView;
use dpr_model::{DeliveryMode, ForwardingMethod, Sharing};

/// How the programs forward a service's packets; `None` when they cannot.
pub(super) fn method_of(service: &ServiceView<'_>) -> Option<Method> {
    let sharing = service.service.sharing;
    // A stand-in's own server would have to answer through it.
    let translates = service.may_translate && sharing != Sharing::Home;
    // What is delivered as it came would be seen by user space as well, which would take it for a client's.
    let is_seen_twice = sharing != Sharing::Home && service.service.delivery == DeliveryMode::Alias;
    if translates || is_seen_twice {
        return None;
    }
    match service.service.method {
        ForwardingMethod::Gue => Some(Method::Gue),
        ForwardingMethod::Dr => Some(Method::Dr),
        // What is translated is handed to its owner like everything else.
        ForwardingMethod::Ipip | ForwardingMethod::Nat | ForwardingMethod::HalfNat => Some(Method::Ipip),
    }
}

/// Servers without `dpr` have no numbers: whoever has them, decides above.
pub(super) fn has_external(service: &ServiceView<'_>) -> bool {
    service.candidates.iter().any(|candidate| candidate.node.is_external())
}
