//! `varia inspect`: text, JSON and a drawing.

use std::process::Stdio;

use serde_json::Value;

use crate::process::{Folder, ended, varia};

const GIB: u64 = 1 << 30;

fn json(args: &[&str]) -> Value {
    let mut command = varia(["inspect", "--json"]);
    command.args(args);
    let ended = ended(command).success();
    serde_json::from_str(&ended.stdout).unwrap()
}

/// A BAR by index: {size, length, the variant's name of the memory}.
fn bar(inspection: &Value, index: u64) -> (u64, u64, Option<&str>) {
    let bars = inspection["bars"].as_array().unwrap();
    let bar = bars.iter().find(|bar| bar["index"] == index).unwrap();
    (
        bar["size"].as_u64().unwrap(),
        bar["length"].as_u64().unwrap(),
        bar["memory"].as_str(),
    )
}

#[test]
fn json_says_what_a_vm_would_see_of_a_gh200() {
    let seen = json(&["gh200", "--memory", "96G+300M"]);
    assert_eq!(seen["schema"], "varia-inspect/1");
    assert_eq!(seen["profile"], "gh200-120gb");
    assert_eq!(seen["device"], "10de:2342");
    assert_eq!(seen["variant"], "nvgrace-gpu");
    assert_eq!(seen["declined"], Value::Null);
    assert_eq!(seen["memory"]["size"], 96 * GIB + (300 << 20));
    assert_eq!(bar(&seen, 0).0, 16 << 20);
    let resmem = GIB + (300 << 20);
    assert_eq!(bar(&seen, 2), (2 * GIB, resmem, Some("resmem")));
    assert_eq!(bar(&seen, 4), (128 * GIB, 95 * GIB, Some("usemem")));
    let facts = seen["facts"].as_array().unwrap();
    assert!(facts.iter().any(|fact| fact["sourced"] == false));
    assert!(facts.iter().all(|fact| fact["why"].as_str().is_some()));
}

#[test]
fn json_says_what_a_vm_would_see_of_a_gb200() {
    let seen = json(&["gb200"]);
    assert_eq!(seen["device"], "10de:2941");
    assert_eq!(bar(&seen, 2), (256 * GIB, 256 * GIB, None));
    assert_eq!(bar(&seen, 4), (256 * GIB, 184 * GIB, Some("usemem")));
}

#[test]
fn every_profile_is_inspected_by_each_of_its_names() {
    for (name, profile, device, memory, bar4) in [
        ("gh200-120gb", "gh200-120gb", "10de:2342", 96, 128),
        ("gh200", "gh200-120gb", "10de:2342", 96, 128),
        ("gh200-480gb", "gh200-480gb", "10de:2345", 96, 128),
        ("gb200", "gb200", "10de:2941", 184, 256),
        ("gb300", "gb300", "10de:31c2", 278, 512),
        ("gb300-cxl", "gb300-cxl", "10de:31c2", 278, 512),
        ("cxl", "gb300-cxl", "10de:31c2", 278, 512),
    ] {
        let seen = json(&[name]);
        assert_eq!(
            (&seen["profile"], &seen["device"]),
            (&profile.into(), &device.into())
        );
        assert_eq!(seen["memory"]["size"], memory * GIB, "{name}");
        assert_eq!(bar(&seen, 4).0, bar4 * GIB, "{name}");
        let ready = seen["readiness"].as_str().unwrap();
        assert_eq!(ready.contains("CXL"), name.ends_with("cxl"), "{ready}");
    }
    let seen = json(&["nic"]);
    assert_eq!(seen["device"], "1234:0e1c");
    for absent in ["memory", "variant", "readiness"] {
        assert_eq!(seen[absent], Value::Null, "{absent}");
    }
    assert_eq!(seen["bars"][2]["kind"], "I/O ports");
    let text = ended(varia(["inspect", "nic"])).success().stdout;
    assert!(!text.contains("coherent memory"), "{text}");
}

#[test]
fn a_device_that_is_declined_says_why_in_json_in_text_and_in_the_log() {
    let args = ["gh200", "--fault", "no-properties"];
    let seen = json(&args);
    let reason = seen["declined"].as_str().unwrap();
    assert!(reason.contains("nvidia,gpu-mem-base-pa"), "{reason}");
    assert_eq!(bar(&seen, 4), (32 << 20, 32 << 20, None));
    let mut command = varia(["inspect"]);
    command.args(args);
    let ended = ended(command).success();
    assert!(ended.stdout.contains(reason), "{}", ended.stdout);
    assert!(ended.stderr.contains(reason), "{}", ended.stderr);
}

#[test]
fn igd_has_its_opregion_and_the_bridges_beside_it_as_regions() {
    let seen = json(&["igd"]);
    assert_eq!(seen["variant"], "igd");
    let regions = seen["regions"].as_array().unwrap();
    let found: Vec<_> = regions
        .iter()
        .map(|region| {
            (
                region["index"].as_u64(),
                region["subtype"].as_u64(),
                region["size"].as_u64(),
            )
        })
        .collect();
    let of = |index, subtype, size| (Some(index), Some(subtype), Some(size));
    assert_eq!(found, [of(9, 1, 0x3c00), of(10, 2, 4096), of(11, 3, 256)]);
    assert!(
        regions
            .iter()
            .all(|region| region["map"] == false && region["read"] == true)
    );
    let text = ended(varia(["inspect", "igd"])).success().stdout;
    assert!(
        text.contains("OpRegion") && text.contains("LPC bridge"),
        "{text}"
    );
}

#[test]
fn text_draws_the_layout() {
    let text = ended(varia(["inspect", "gh200"])).success().stdout;
    for part in [
        "96 GiB", "BAR2", "1 GiB", "BAR4", "128 GiB", "95 GiB", "####",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_drawing_is_well_formed_and_names_the_bars() {
    let folder = Folder::new();
    for profile in ["gh200", "gh200-480gb", "gb200", "gb300", "cxl"] {
        let path = folder.argument("layout.svg");
        let ended = ended(varia(["inspect", profile, "--svg", &path])).success();
        assert!(ended.stdout.contains(&path), "{}", ended.stdout);
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg xmlns="), "{svg}");
        assert!(svg.contains("BAR4 = "), "{svg}");
        assert_balanced(&svg);
    }
}

/// Checks that every element is closed, in order.
fn assert_balanced(xml: &str) {
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag ends");
        assert!(!text.contains('>'), "{text:?} is not escaped");
        let name = tag.split_whitespace().next().unwrap_or_default();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        let quotes = tag.matches('"').count();
        assert_eq!(quotes % 2, 0, "{tag}");
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn the_picture_in_the_documentation_is_what_inspect_draws() {
    let folder = Folder::new();
    let path = folder.argument("layout.svg");
    ended(varia(["inspect", "gh200", "--svg", &path])).success();
    let drawn = std::fs::read_to_string(&path).unwrap();
    let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/gh200.svg");
    assert!(
        drawn == std::fs::read_to_string(documented).unwrap(),
        "docs/gh200.svg is out of date: varia inspect gh200 --svg docs/gh200.svg"
    );
}

#[test]
fn a_drawing_that_can_not_be_written_is_named_with_the_remedy() {
    let folder = Folder::new();
    let path = folder.argument("none/layout.svg");
    let refusal = ended(varia(["inspect", "gh200", "--svg", &path]));
    refusal.refused(&[&path, "directory that you may write to"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut command = varia(["inspect", "gh200", "--json"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(Stdio::from(writer));
    let ended = ended(command).success();
    assert_eq!(ended.stderr, "");
}
