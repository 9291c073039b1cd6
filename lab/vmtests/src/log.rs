//! Signs of trouble in a kernel's log: what no machine may have printed when a test is over.

/// Texts that a kernel prints when something is wrong in it: warnings of its own, of lockdep, KASAN,
/// the list and reference count checks, and the watchdogs. Source: Linux 7.2 `kernel/panic.c`,
/// `kernel/locking/lockdep.c`, `mm/kasan/report.c`, `lib/list_debug.c`, `lib/refcount.c`,
/// `kernel/hung_task.c`, `kernel/watchdog.c`, `kernel/rcu/tree_stall.h`.
const SIGNS: [&str; 22] = [
    "WARNING:",
    "BUG:",
    "kernel BUG at",
    "Oops",
    "cut here",
    "Call trace:",
    "Call Trace:",
    "Internal error",
    "Unable to handle kernel",
    "general protection fault",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "sleeping function called",
    "KASAN:",
    "UBSAN:",
    "list_add corruption",
    "list_del corruption",
    "refcount_t:",
    "blocked for more than",
    "stall on CPU",
];

/// The lines of a log that show trouble.
#[must_use]
pub fn troubles(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| SIGNS.iter().any(|sign| line.contains(sign)))
        .collect()
}

/// A log without the reports, from the line to cut at to the end of the trace, whose warning names
/// `known`.
#[must_use]
pub fn without(log: &str, known: &str) -> String {
    let mut kept = String::new();
    let mut report = String::new();
    for line in log.lines() {
        let begins = line.contains("[ cut here ]");
        if begins {
            kept.push_str(&std::mem::take(&mut report));
        }
        let to = if begins || !report.is_empty() {
            &mut report
        } else {
            &mut kept
        };
        to.push_str(line);
        to.push('\n');
        if line.contains("[ end trace ") {
            let is_known = report.lines().any(|line| {
                let names = line.contains("WARNING:") || line.contains("UBSAN:");
                names && line.contains(known)
            });
            let ended = std::mem::take(&mut report);
            if !is_known {
                kept.push_str(&ended);
            }
        }
    }
    kept.push_str(&report);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_among_ordinary_lines_is_found() {
        let log = "[    1.0] pci 0000:00:01.0: enabling device\n\
                   [    2.0] WARNING: CPU: 1 PID: 77 at drivers/vfio/vfio_main.c:1\n\
                   [    3.0] ours: loading out-of-tree module taints kernel.\n\
                   [    4.0] INFO: task stress:99 blocked for more than 120 seconds.\n";
        let found = troubles(log);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("vfio_main") && found[1].contains("stress:99"));
    }

    #[test]
    fn a_known_warning_is_left_out_with_its_trace_and_no_other() {
        let report = |function: &str| {
            format!(
                "[ 1.0] ------------[ cut here ]------------\n\
                 [ 1.0] WARNING: a.c:1 at {function}+0x1/0x2, CPU#0: init/1\n\
                 [ 1.0] Call trace:\n\
                 [ 1.0] ---[ end trace 0000000000000000 ]---\n"
            )
        };
        let log = format!("before\n{}between\n{}after\n", report("f"), report("g"));
        assert_eq!(troubles(&log).len(), 6);
        let rest = without(&log, "at f+");
        assert_eq!(rest, format!("before\nbetween\n{}after\n", report("g")));
        let unfinished = format!("{}BUG: worse\n", &report("f")[..80]);
        assert_eq!(without(&unfinished, "at f+"), unfinished);
    }
}
