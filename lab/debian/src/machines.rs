//! Tests: the mirror and keys of machines of several distributions, whose files are laid under a
//! temporary folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::Result;
use crate::mirror::{Keys, Mirror};
use crate::neighbour::Neighbour;

/// Files of a machine: path and text.
type Files<'a> = &'a [(&'a str, &'a str)];

/// Debian 12 and 13 as their cloud images are configured.
const DEBIAN_SOURCES: &str = "\
Types: deb deb-src
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: trixie trixie-updates trixie-backports
Components: main

Types: deb deb-src
URIs: mirror+file:/etc/apt/mirrors/debian-security.list
Suites: trixie-security
Components: main
";

/// Debian 13 as its installer configures it.
const TRIXIE_SOURCES: &str = "\
# Modernized from /etc/apt/sources.list
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: trixie trixie-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security/
Suites: trixie-security
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";

/// Debian 12 as its installer configures it.
const BOOKWORM_LIST: &str = "\
#deb cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official amd64 NETINST]/ bookworm main

deb http://mirror.example/debian/ bookworm main non-free-firmware
deb-src http://mirror.example/debian/ bookworm main non-free-firmware

deb http://security.example/debian-security bookworm-security main non-free-firmware
deb http://mirror.example/debian/ bookworm-updates main non-free-firmware
";

/// Ubuntu 24.04.
const NOBLE_SOURCES: &str = "\
# See http://help.example/community/UpgradeNotes for how to upgrade
Types: deb
URIs: http://archive.example/ubuntu/
Suites: noble noble-updates noble-backports
Components: main universe restricted multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

## Ubuntu security updates.
Types: deb
URIs: http://security.example/ubuntu/
Suites: noble-security
Components: main universe restricted multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
";

/// Ubuntu 24.04, upgraded from an earlier release.
const NOBLE_LIST: &str = "\
deb http://de.archive.example/ubuntu/ noble main restricted
# deb-src http://de.archive.example/ubuntu/ noble main restricted
deb http://de.archive.example/ubuntu/ noble universe
deb http://security.example/ubuntu noble-security main restricted universe
";

/// Archives of other origin, which use the names of Debian's suites.
const STRANGERS: Files = &[
    (
        "/etc/apt/sources.list.d/browser.list",
        "deb [arch=amd64] https://browser.example/linux/browser/deb/ stable main\n",
    ),
    (
        "/etc/apt/sources.list.d/database.list",
        "deb [signed-by=/usr/share/keyrings/db.asc] https://database.example/apt bookworm-db main\n",
    ),
    (
        "/etc/apt/sources.list.d/php.sources",
        "Types: deb\nURIs: https://php.example/php/\nSuites: trixie\nComponents: main\n",
    ),
    (
        "/etc/apt/sources.list.d/vendor.list",
        "deb [signed-by=/usr/share/keyrings/vendor.gpg] https://vendor.example/x/debian trixie main\n",
    ),
    (
        "/etc/apt/sources.list.d/debian.list.save",
        "deb http://saved.example/debian sid main\n",
    ),
];

/// A template of python-apt, cut to what has a mirror.
const TEMPLATE: &str = "\
ChangelogURI: https://changelogs.example/%s

Suite: {series}
RepositoryType: deb
BaseURI: https://debian.example/debian/
MatchURI: debian\\.example
MirrorsFile: Debian.mirrors
Description: Debian {version} '{codename}'
Component: main
CompDescription: Officially supported
Component: contrib

Suite: {series}-security
RepositoryType: deb
BaseURI: https://security.example/
Description: Security updates
";

const TEMPLATE_PATH: &str = "/usr/share/python-apt/templates/Debian.info";
const KEYRING_PATH: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn lay(root: &Path, files: Files) {
    for (path, text) in files {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// The mirror of a machine with these files.
fn mirror_of(files: &[Files]) -> Result<Mirror> {
    let root = tempfile::tempdir().unwrap();
    for files in files {
        lay(root.path(), files);
    }
    let private = root.path().join("private");
    let mirror = Mirror::of(&Neighbour::new(root.path(), &private), None)?;
    Ok(without_root(mirror, root.path()))
}

/// The mirror with its keyring named as on the machine itself.
fn without_root(mut mirror: Mirror, root: &Path) -> Mirror {
    if let Keys::Named(name) = &mut mirror.keys {
        *name = name.replace(&root.display().to_string(), "");
    }
    mirror
}

fn mirror(uri: &str, keys: Keys) -> Mirror {
    Mirror {
        uri: uri.to_owned(),
        keys,
    }
}

#[test]
fn debian_has_its_mirror_in_its_configuration() {
    let keyring = || Keys::Named(KEYRING_PATH.to_owned());
    let list = "/etc/apt/sources.list";
    let sources = "/etc/apt/sources.list.d/debian.sources";
    let testing = TRIXIE_SOURCES.replace("trixie", "testing");
    let testing_list = BOOKWORM_LIST.replace("bookworm", "testing");
    let cases: [(&str, (&str, &str), Mirror); 6] = [
        (
            "Debian 12, one-line",
            (list, BOOKWORM_LIST),
            mirror("http://mirror.example/debian/", Keys::Default),
        ),
        (
            "Debian 12, deb822",
            (sources, &TRIXIE_SOURCES.replace("trixie", "bookworm")),
            mirror("http://mirror.example/debian/", keyring()),
        ),
        (
            "Debian 13, deb822",
            (sources, TRIXIE_SOURCES),
            mirror("http://mirror.example/debian/", keyring()),
        ),
        (
            "Debian 13, list of mirrors",
            (sources, DEBIAN_SOURCES),
            mirror("mirror+file:/etc/apt/mirrors/debian.list", Keys::Default),
        ),
        (
            "testing, deb822",
            (sources, &testing),
            mirror("http://mirror.example/debian/", keyring()),
        ),
        (
            "testing, one-line",
            (list, &testing_list),
            mirror("http://mirror.example/debian/", Keys::Default),
        ),
    ];
    for (name, file, expected) in cases {
        let alone = mirror_of(&[&[file]]).unwrap();
        assert_eq!(alone, expected, "{name}");
        let among_strangers = mirror_of(&[STRANGERS, &[file]]).unwrap();
        assert_eq!(
            among_strangers, expected,
            "{name}, among archives of other origin"
        );
    }
}

#[test]
fn ubuntu_knows_debians_mirror_from_a_template_or_from_debootstrap() {
    let resolute = NOBLE_SOURCES.replace("noble", "resolute");
    let resolute_list = NOBLE_LIST.replace("noble", "resolute");
    let sources = "/etc/apt/sources.list.d/ubuntu.sources";
    let list = "/etc/apt/sources.list";
    let keyring = (KEYRING_PATH, "keys");
    let configurations = [
        ("24.04, deb822", (sources, NOBLE_SOURCES)),
        ("24.04, one-line", (list, NOBLE_LIST)),
        ("26.04, deb822", (sources, &resolute)),
        ("26.04, one-line", (list, &resolute_list)),
    ];
    let debootstrap = "mirror_style release\n# default_mirror http://old.example/debian\n\
                       default_mirror http://script.example/debian\n";
    let program = "DEF_MIRROR=\"http://program.example/debian\"\n";
    let of_ubuntu = "DEF_MIRROR=\"http://archive.example/ubuntu\"\n";
    let script_path = "/usr/share/debootstrap/scripts/sid";
    let program_path = "/usr/sbin/debootstrap";
    let known: [(Files, &str); 3] = [
        (
            &[(TEMPLATE_PATH, TEMPLATE), (program_path, program)],
            "https://debian.example/debian/",
        ),
        (
            &[(script_path, debootstrap), (program_path, of_ubuntu)],
            "http://script.example/debian",
        ),
        (
            &[
                (script_path, "mirror_style release\n"),
                (program_path, program),
            ],
            "http://program.example/debian",
        ),
    ];
    for (name, configuration) in configurations {
        for (files, uri) in known {
            let found = mirror_of(&[STRANGERS, &[configuration, keyring], files]).unwrap();
            let keys = Keys::Named(KEYRING_PATH.to_owned());
            assert_eq!(found, mirror(uri, keys), "Ubuntu {name}");
        }
    }
}

/// Makes a package with these files, without dependencies, in the folder `repository`.
fn package(repository: &Path, name: &str, files: Files) {
    let tree = tempfile::tempdir().unwrap();
    let control = format!(
        "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example>\n\
         Description: test\n"
    );
    lay(tree.path(), &[("/DEBIAN/control", &control)]);
    lay(tree.path(), files);
    let deb = repository.join(format!("{name}_1_all.deb"));
    let mut build = Command::new("dpkg-deb");
    build.arg("-b").arg(tree.path()).arg(&deb);
    crate::command::run(&mut build).unwrap();
    let size = fs::metadata(&deb).unwrap().len();
    let sum = crate::command::text(Command::new("sha256sum").arg(&deb)).unwrap();
    let sum = sum.split_whitespace().next().unwrap();
    let list = repository.join("Packages");
    let known = fs::read_to_string(&list).unwrap_or_default();
    let stanza = format!("{control}Filename: ./{name}_1_all.deb\nSize: {size}\nSHA256: {sum}\n\n");
    fs::write(list, known + &stanza).unwrap();
}

#[test]
fn ubuntu_without_either_downloads_them_from_its_own_sources() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("repository");
    fs::create_dir(&repository).unwrap();
    package(
        &repository,
        "debian-archive-keyring",
        &[(KEYRING_PATH, "keys")],
    );
    package(
        &repository,
        "python-apt-common",
        &[(TEMPLATE_PATH, TEMPLATE)],
    );
    let machine = Neighbour::new(root.path(), &root.path().join("private"));
    let sources = |trusted: &str| {
        format!(
            "Types: deb\nURIs: file:{}\nSuites: ./\n{trusted}\n",
            repository.display()
        )
    };
    let path = "/etc/apt/sources.list.d/ubuntu.sources";
    lay(
        root.path(),
        &[(path, &sources("")), ("/var/lib/dpkg/status", "")],
    );
    // Nothing signs the repository, and the configuration does not permit that.
    let error = Mirror::of(&machine, None).unwrap_err().to_string();
    assert!(error.contains("does not have a Release file"), "{error}");
    // A source that is gone does not matter if another one has the package.
    let gone = "Types: deb\nURIs: file:/no/such/repository\nSuites: ./\n";
    lay(
        root.path(),
        &[
            (path, &sources("Trusted: yes")),
            ("/etc/apt/sources.list.d/gone.sources", gone),
        ],
    );
    let found = Mirror::of(&machine, None).unwrap();
    let keyring = "/private/debian-archive-keyring".to_owned() + KEYRING_PATH;
    assert_eq!(
        without_root(found, root.path()),
        mirror("https://debian.example/debian/", Keys::Named(keyring))
    );
    // A mirror of the user's own needs the keys alone, and they are there now.
    fs::remove_dir_all(&repository).unwrap();
    let own = Mirror::of(&machine, Some("http://own.example/debian".to_owned())).unwrap();
    assert_eq!(own.uri, "http://own.example/debian");
}
