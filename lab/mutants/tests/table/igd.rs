//! Faults in igd's decisions.

use varia_mutants::Mutant;

use super::mutant;

const IGD: &str = "variants/src/igd.rs";
const OPREGION: &str = "variants/src/igd/opregion.rs";
const BRIDGE: &str = "variants/src/igd/bridge.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        OPREGION,
        "an address of all ones is an address",
        "asls == 0 || asls == u32::MAX",
        "asls == 0",
    ),
    mutant(
        OPREGION,
        "the header's size is trusted",
        "len == 0 || len > opregion::LEN",
        "len == 0",
    ),
    mutant(
        OPREGION,
        "version 1 has an extended VBT",
        "if version >= opregion::VERSION_2_0 {",
        "if version >= 0x0100 {",
    ),
    mutant(
        OPREGION,
        "RVDA is always an offset",
        "opregion::VERSION_2_0 => Some(place),",
        "0x0fff => Some(place),",
    ),
    mutant(
        OPREGION,
        "a short header cuts the VBT",
        "region.len = opregion::LEN;",
        "region.len = len;",
    ),
    mutant(
        OPREGION,
        "the guest sees version 2.0",
        "(opregion::VERSION_2_0, Some(_)) => opregion::VERSION_2_1,",
        "(opregion::VERSION_2_0, Some(_)) => opregion::VERSION_2_0,",
    ),
    mutant(
        OPREGION,
        "the guest sees the host's RVDA",
        "if self.vbt.is_some() { opregion::LEN } else { 0 }",
        "if self.vbt.is_some() { opregion::LEN } else { opregion::LEN }",
    ),
    mutant(
        BRIDGE,
        "any class will do",
        "vendor != intel::VENDOR_ID || class != kind.class",
        "vendor != intel::VENDOR_ID",
    ),
    mutant(
        BRIDGE,
        "a dword is read at an even offset",
        "len < 4 || !offset.is_multiple_of(4)",
        "len < 4",
    ),
    mutant(
        IGD,
        "a new user finds the last one's address",
        "(&self.plan, event) {\n            served.asls.restart();",
        "(&self.plan, event) {\n            served.asls.window();",
    ),
    mutant(
        IGD,
        "the regions are in another order",
        "Some(1) => &served.host,",
        "Some(1) => &served.lpc,",
    ),
];
