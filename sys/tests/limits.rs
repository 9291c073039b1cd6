//! The limit of open files. It belongs to the whole process, so this program has one test.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use varia_sys::limits::raise_open_files;

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let low = Rlimit {
        current: Some(64),
        maximum,
    };
    setrlimit(Resource::Nofile, low).unwrap();
    raise_open_files().unwrap();
    let raised = getrlimit(Resource::Nofile);
    assert_eq!((raised.current, raised.maximum), (maximum, maximum));
    assert_ne!(raised.current, Some(64));
}
