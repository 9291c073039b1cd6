//! Counters of our module for a device (debugfs, docs/kernel.md), and the rules that hold once
//! the device is idle: the rules of ARCHITECTURE.md, "State under concurrency".

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::host::{Driver, Host};

/// Mount point of debugfs in a machine.
pub const DEBUGFS: &str = "/sys/kernel/debug";

/// Text of a file of a device in debugfs.
///
/// # Errors
/// If it can't be read.
pub fn file(host: &Host, gpu: usize, name: &str) -> Result<String> {
    let module = Driver::Ours.name();
    let path = format!("{DEBUGFS}/{module}/{}/{name}", host.address(gpu));
    Ok(host.vm.read_text(&path)?)
}

/// The counts of a device, and its two generations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads them.
    ///
    /// # Errors
    /// If they can't be read, or are not what docs/kernel.md says.
    pub fn read(host: &Host, gpu: usize) -> Result<Self> {
        let text = [file(host, gpu, "counters")?, file(host, gpu, "readiness")?];
        Self::parse(&text.join("\n"))
    }

    /// The same of the files' text: `counters`, then `readiness`.
    ///
    /// # Errors
    /// If it is not what docs/kernel.md says.
    pub fn parse(text: &str) -> Result<Self> {
        let pair = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let numbers = |line: &&str| !line.starts_with("method ");
        let counts = text.lines().filter(numbers).map(|line| {
            pair(line).ok_or_else(|| Error::Unexpected(format!("debugfs shows {line:?}")))
        });
        Ok(Self(counts.collect::<Result<_>>()?))
    }

    /// Value of a counter.
    ///
    /// # Panics
    /// If there is none of this name: the test is wrong.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        *self
            .0
            .get(name)
            .unwrap_or_else(|| panic!("there is no count {name}"))
    }

    /// Rules that are broken, for a device without users.
    #[must_use]
    pub fn broken_rules(&self) -> Vec<String> {
        self.broken(false)
    }

    /// Rules that are broken, for a device that is open and no longer used.
    #[must_use]
    pub fn broken_rules_while_open(&self) -> Vec<String> {
        self.broken(true)
    }

    fn broken(&self, open: bool) -> Vec<String> {
        BALANCES
            .iter()
            .filter_map(|(rule, left, right)| {
                let sum = |names: &[&str]| names.iter().map(|name| self.get(name)).sum::<u64>();
                let holds = match rule {
                    Rule::Equal => sum(left) == sum(right),
                    Rule::OneMore => sum(left) == sum(right) + 1,
                    Rule::AtMost => sum(left) <= sum(right),
                    Rule::GivenBack if open => sum(left) >= sum(right),
                    Rule::GivenBack => sum(left) == sum(right),
                };
                let shown = |names: &[&str]| {
                    let each = names
                        .iter()
                        .map(|name| format!("{name} {}", self.get(name)));
                    each.collect::<Vec<_>>().join(" + ")
                };
                let word = match rule {
                    Rule::GivenBack if open => "is less than",
                    Rule::Equal | Rule::GivenBack => "is not",
                    Rule::OneMore => "is not 1 more than",
                    Rule::AtMost => "is more than",
                };
                (!holds).then(|| format!("{} {word} {}", shown(left), shown(right)))
            })
            .collect()
    }
}

enum Rule {
    Equal,
    OneMore,
    AtMost,
    /// Equal, once the device is closed.
    GivenBack,
}

type Balance = (Rule, &'static [&'static str], &'static [&'static str]);

const BALANCES: &[Balance] = &[
    // Each reset is a generation, and the device starts with one.
    (Rule::AtMost, &["ready_generation"], &["reset_generation"]),
    (
        Rule::OneMore,
        &["reset_generation"],
        &["resets", "recoveries"],
    ),
    // Each poll is under the lock, and is raced at most once.
    (Rule::Equal, &["polls_unlocked"], &[]),
    (Rule::AtMost, &["polls_raced"], &["polls"]),
    // A poll comes before each sleep.
    (Rule::AtMost, &["waits"], &["polls"]),
    // Each wait ends once.
    (
        Rule::Equal,
        &["waits"],
        &[
            "waits_ready",
            "waits_timed_out",
            "waits_killed",
            "waits_failed",
        ],
    ),
    // The lock is held ready once for each act that it authorises.
    (
        Rule::Equal,
        &["locks_ready"],
        &["checks", "copies", "faults_served", "faults_not_inserted"],
    ),
    (
        Rule::Equal,
        &["faults"],
        &[
            "faults_fallback",
            "faults_outside",
            "faults_failed",
            "faults_not_ready",
            "faults_retried",
            "faults_served",
            "faults_not_inserted",
        ],
    ),
    (Rule::Equal, &["accesses"], &["accesses_ended"]),
    (Rule::GivenBack, &["opens"], &["opens_failed", "closes"]),
    (Rule::GivenBack, &["memory_mapped"], &["memory_unmapped"]),
    (Rule::GivenBack, &["memory_claimed"], &["memory_released"]),
    (
        Rule::GivenBack,
        &["pages_registered"],
        &["pages_unregistered"],
    ),
    (Rule::AtMost, &["config_splits"], &["config_writes"]),
    (Rule::AtMost, &["config_short"], &["config_writes"]),
    (Rule::AtMost, &["poison_found"], &["poison_lookups"]),
    (
        Rule::AtMost,
        &["poison_entries", "poison_overflow"],
        &["poison_found"],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(changed: &str) -> Counters {
        let mut counts = BTreeMap::new();
        for (_, left, right) in BALANCES {
            for name in left.iter().chain(*right) {
                counts.insert((*name).to_owned(), 0);
            }
        }
        // a device that has not been reset
        counts.insert("reset_generation".to_owned(), 1);
        counts.extend(Counters::parse(changed).expect("counts").0);
        Counters(counts)
    }

    #[test]
    fn an_imbalance_is_named_with_its_counts() {
        assert_eq!(counters("").broken_rules(), Vec::<String>::new());
        assert_eq!(
            counters("ready_generation 2").broken_rules(),
            ["ready_generation 2 is more than reset_generation 1"]
        );
        assert_eq!(
            counters("resets 1").broken_rules(),
            ["reset_generation 1 is not 1 more than resets 1 + recoveries 0"]
        );
        assert_eq!(
            counters("polls_unlocked 1").broken_rules(),
            ["polls_unlocked 1 is not "]
        );
        let broken = counters("polls 2\nwaits 2\nwaits_killed 1").broken_rules();
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(Counters::parse("a b c").is_err());
        let open = counters("opens 2\nopens_failed 1");
        assert_eq!(open.broken_rules_while_open(), Vec::<String>::new());
        assert_eq!(open.broken_rules().len(), 1, "{open:?}");
        let broken = counters("memory_unmapped 1").broken_rules_while_open();
        assert_eq!(broken, ["memory_mapped 0 is less than memory_unmapped 1"]);
    }
}
