//! `--layout`, `--memory-enable` and `--gpudirect-clique`.

use serde_json::Value;

use crate::process::{ended, varia};

const GIB: u64 = 1 << 30;

fn json(args: &[&str]) -> Value {
    let mut command = varia(["inspect", "--json"]);
    command.args(args);
    serde_json::from_str(&ended(command).success().stdout).unwrap()
}

/// BARs as index and size.
fn bars(seen: &Value) -> Vec<(u64, u64)> {
    let bars = seen["bars"].as_array().unwrap();
    let number = |bar: &Value, name: &str| bar[name].as_u64().unwrap();
    bars.iter()
        .map(|bar| (number(bar, "index"), number(bar, "size")))
        .collect()
}

#[test]
fn inspect_shows_each_layout() {
    let bar0 = (0, 16 << 20);
    let gh200 = json(&["gh200", "--layout", "region"]);
    assert_eq!(bars(&gh200), [bar0]);
    let base = gh200["memory"]["base"].as_u64().unwrap();
    let regions = gh200["regions"].as_array().unwrap();
    let expected = [
        (9, 95 * GIB, 0x100, "usemem", base),
        (10, GIB, 0x101, "resmem", base + 95 * GIB),
    ];
    assert_eq!(regions.len(), expected.len());
    for (region, (index, size, subtype, name, base)) in regions.iter().zip(expected) {
        assert_eq!(region["index"], index);
        assert_eq!(region["size"], size);
        assert_eq!(region["kind"], 0x8000_10de_u32);
        assert_eq!(region["subtype"], subtype);
        assert_eq!(
            (&region["name"], &region["base"]),
            (&name.into(), &base.into())
        );
        let allowed = ["read", "write", "map"].map(|what| region[what].as_bool().unwrap());
        assert_eq!(allowed, [false, false, true]);
    }
    let gb200 = json(&["gb200", "--layout", "physical-bar"]);
    assert_eq!(bars(&gb200), [bar0, (2, 256 * GIB), (4, 32 << 20)]);
    assert_eq!(gb200["bars"][1]["length"], 184 * GIB);
    assert_eq!(gb200["regions"], Value::Array(Vec::new()));
    let default = json(&["gh200"]);
    assert_eq!(bars(&default), bars(&json(&["gh200", "--layout", "bar"])));
    let text = ended(varia(["inspect", "gh200", "--layout", "region"]));
    let text = text.success().stdout;
    for part in [
        "region 9         95 GiB",
        "subtype 0x101",
        "region 10 (resmem)",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_layout_that_can_not_be_is_refused_with_values_and_remedy() {
    let cases: &[(&[&str], &[&str])] = &[
        (
            &[
                "inspect",
                "gb200",
                "--memory",
                "300G",
                "--layout",
                "physical-bar",
            ],
            &["300 GiB", "256 GiB", "--layout bar"],
        ),
        (
            &["inspect", "gh200", "--layout", "physical-bar"],
            &["1 GiB", "MIG", "layout bar or region"],
        ),
        (
            &[
                "serve",
                "gh200",
                "--layout",
                "region",
                "--memory-enable",
                "honour",
            ],
            &["memory-enable", "layout bar"],
        ),
        (
            &["serve", "gh200", "--layout", "region", "--as", "physical"],
            &["--as physical", "leave out"],
        ),
        (
            &["inspect", "nic", "--layout", "bar"],
            &["nic", "leave out --layout"],
        ),
        (
            &["run", "gh200", "--layout", "region", "--dry-run"],
            &["QEMU maps no device-specific region", "--layout bar"],
        ),
        (
            &["serve", "gh200", "--gpudirect-clique", "16"],
            &["16 is no GPUDirect clique", "from 0 to 15"],
        ),
        (
            &["serve", "nic", "--gpudirect-clique", "1"],
            &["no GPU of NVIDIA's", "leave out"],
        ),
        (
            &[
                "serve",
                "gh200",
                "--gpudirect-clique",
                "1",
                "--as",
                "physical",
            ],
            &["--gpudirect-clique", "leave out"],
        ),
        (
            &["inspect", "gh200", "--layout", "acpi"],
            &["acpi", "bar, region, physical-bar"],
        ),
        (
            &["serve", "gh200", "--memory-enable", "yes"],
            &["yes", "ignore, honour"],
        ),
    ];
    for (args, parts) in cases {
        ended(varia(args.iter().copied())).refused(parts);
    }
}

#[test]
fn inspect_says_where_the_capability_of_a_clique_is() {
    let seen = json(&["gb200", "--gpudirect-clique", "3"]);
    assert_eq!(seen["clique_capability"], 0xc8);
    let without = json(&["gb200"]);
    assert_eq!(without["clique_capability"], Value::Null);
    let text = ended(varia(["inspect", "gb200", "--gpudirect-clique", "3"])).success();
    assert!(
        text.stdout.contains("capability at 0xc8"),
        "{}",
        text.stdout
    );
}

#[test]
fn a_dry_run_serves_the_layout_that_it_plans_with() {
    let mut command = varia(["run", "gb200", "--layout", "physical-bar", "--dry-run"]);
    command.args(["--gpudirect-clique", "3"]);
    let text = ended(command).success().stdout;
    assert!(text.contains("--gpudirect-clique 3"), "{text}");
    assert!(text.contains("--layout physical-bar"), "{text}");
    assert!(text.contains("pref64-reserve=512G"), "{text}");
}
