//! Definitions that there are already: good ones are not faulted, and of a broken one exactly the
//! fault is named, and the diff puts it right.

mod broken;
mod exercise;
mod good;
#[path = "../../../plan/tests/requests/host.rs"]
#[allow(dead_code, reason = "the tests of `plan` use the rest of it")]
mod host;
mod several;
mod shell_values;
mod stack;
mod text;
mod unjudged;
mod unreadable;
