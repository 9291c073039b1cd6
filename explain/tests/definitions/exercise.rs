//! Properties for any bytes; the fuzz target `definition` and the tests share it.

use varia_explain::{Knowledge, examine};
use varia_facts::Facts;

/// A host with one GPU.
const HOST: &str = r#"{
    "schema": "varia-facts/1", "host": {}, "kernel": {}, "functions": [{
        "bdf": "0009:01:00.0", "vendor": 4318, "device": 9026, "subsystem_vendor": 0,
        "subsystem_device": 0, "class": 197120, "variant": "nvgrace-gpu", "cpu_node": 0,
        "virtual_bars": [
            { "index": 0, "size": 16777216, "length": 16777216, "prefetchable": true },
            { "index": 4, "size": 137438953472, "length": 102005473280, "prefetchable": true,
              "memory": "usemem" }
        ]
    }]
}"#;

/// Facts of the host.
///
/// # Panics
/// If that is no JSON of facts.
pub(crate) fn facts() -> Facts {
    serde_json::from_str(HOST).expect("facts")
}

/// Bytes are read or refused; each finding has its values; a corrected definition is a definition.
///
/// # Panics
/// If they are not.
pub(crate) fn exercise(bytes: &[u8], facts: &Facts) -> bool {
    let knowledge = Knowledge {
        facts: Some(facts),
        ..Knowledge::default()
    };
    let Ok(found) = examine(bytes, &knowledge) else {
        return false;
    };
    // A brace of a text's template; those of a value come from the definition.
    let has_braces = bytes.contains(&b'{') || bytes.windows(2).any(|pair| pair == b"&#");
    for (finding, _) in &found.findings {
        let texts = [&finding.what, &finding.why, &finding.remedy];
        let is_filled = texts.iter().all(|text| !text.contains('{'));
        assert!(has_braces || is_filled, "{finding:?}");
    }
    let again = examine(found.corrected.as_bytes(), &knowledge);
    assert!(again.is_ok(), "{again:?}: {}", found.corrected);
    let _ = found.diff("vm");
    true
}
