//! Facts of a platform from a file.

use std::path::Path;

use varia_facts::PlatformFacts;

use crate::{Failure, files};

/// The facts in a file.
///
/// # Errors
/// A file that can't be read, that is no JSON, or that has a fact which is not known, with the place
/// in the file.
pub(crate) fn read(path: &Path) -> Result<PlatformFacts, Failure> {
    let unread = |error| format!("{} can't be read: {error}", path.display());
    let text = files::read_json(path).map_err(unread)?;
    let facts: PlatformFacts = serde_json::from_str(&text).map_err(|error| {
        format!(
            "{} has no facts of a platform: {error}; varia inspect PROFILE --json shows facts of \
             this kind under \"platform\"",
            path.display()
        )
    })?;
    facts
        .check()
        .map_err(|bad| format!("{}: {bad}", path.display()))?;
    Ok(facts)
}
