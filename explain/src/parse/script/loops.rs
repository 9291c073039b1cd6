//! Values that loops go over.

use super::Variables;
use crate::parse::expansion::{calculate, range};

/// Values of `{1..8}` or `{a,b}`.
pub(super) fn braces(written: &str) -> Option<Vec<String>> {
    let inner = written.strip_prefix('{')?.strip_suffix('}')?;
    if inner.contains(',') {
        return Some(inner.split(',').map(str::to_owned).collect());
    }
    let numbers: Option<Vec<i64>> = inner.split("..").map(|part| part.parse().ok()).collect();
    let numbers = match numbers?.as_slice() {
        [first, last] if first <= last => range(*first, *last, 1),
        [first, last] => range(*first, *last, -1),
        [first, last, step] => range(*first, *last, *step),
        _ => None,
    }?;
    Some(numbers.iter().map(i64::to_string).collect())
}

/// The variable and the values of `for ((i = 0; i < 8; i++))`.
pub(super) fn counted(text: &str, variables: &Variables) -> Option<(String, Vec<i64>)> {
    let parts: Vec<&str> = text.split(';').collect();
    let [begin, end, step] = parts.as_slice() else {
        return None;
    };
    let (name, first) = begin.split_once('=')?;
    let name = name.trim();
    let first = calculate(first, variables)?;
    let rest = end.trim().strip_prefix(name)?.trim_start();
    let last = match rest.strip_prefix("<=") {
        Some(last) => calculate(last, variables)?,
        None => calculate(rest.strip_prefix('<')?, variables)?.checked_sub(1)?,
    };
    let step = step.replace(' ', "");
    let step = match step.strip_prefix(&format!("{name}+=")) {
        Some(step) => step.parse().ok()?,
        None if step == format!("{name}++") || step == format!("++{name}") => 1,
        None => return None,
    };
    Some((name.to_owned(), range(first, last, step)?))
}
