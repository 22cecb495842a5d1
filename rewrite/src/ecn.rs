//! Explicit congestion notification across tunnels (RFC 6040, normal mode).

use dpr_model::DropReason;

/// The ECN field's two bits in the type-of-service byte.
const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// The type-of-service byte that a packet has after its outer header is removed (RFC 6040, figure 4).
/// The differentiated services code point stays the inner one (RFC 2983, section 4.2).
///
/// # Errors
/// `EcnNotCapable` when the tunnel saw congestion and the transport cannot be told: the packet has to be dropped.
pub fn after_decapsulation(inner: u8, outer: u8) -> Result<u8, DropReason> {
    let ecn = match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => return Err(DropReason::EcnNotCapable),
        (NOT_ECT, _) => NOT_ECT,
        (CE, _) | (_, CE) => CE,
        (_, ECT_1) => ECT_1,
        (ecn, _) => ecn,
    };
    Ok(inner & !MASK | ecn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_rfc_6040_figure_4() {
        const ECT_0: u8 = 0b10;
        let outer = [NOT_ECT, ECT_0, ECT_1, CE];
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, expected) in rows {
            for (outer, expected) in outer.into_iter().zip(expected) {
                assert_eq!(
                    after_decapsulation(inner, outer).ok(),
                    expected,
                    "inner {inner:02b} outer {outer:02b}"
                );
            }
        }
    }
}
