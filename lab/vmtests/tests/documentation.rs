//! Documentation as its readers' own programs take it: mdbook makes the book, mandoc reads the
//! manual, shells read the completions.

use std::fs;
use std::path::Path;
use std::process::Command;

use varia_lab::agent_build::{target_folder, workspace};
use varia_lab::chroot::Chroot;
use varia_lab::{Set, command, packages};
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// `varia` for this machine.
fn varia(arguments: &[&str]) -> Result<String> {
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(workspace());
    build.args(["build", "--quiet", "--package", "varia", "--target-dir"]);
    command::run(build.arg(target_folder()))?;
    let program = target_folder().join("debug/varia");
    Ok(command::text(Command::new(program).args(arguments))?)
}

fn in_lab(folder: &Path, argv: &[&str]) -> Result<String> {
    let tools = packages::ensure(Set::Documentation)?;
    let chroot = Chroot::new(&tools).bind(folder).bind(workspace());
    let output = chroot.cwd(folder).env("LC_ALL", "C").run(argv)?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn mdbook_makes_the_book_with_every_page_and_picture() -> Result<()> {
    let out = tempfile::tempdir()?;
    let (docs, book) = (workspace().join("docs"), out.path().join("book"));
    let argv = ["mdbook", "build", "--dest-dir"].map(str::to_owned);
    let paths = [&book, &docs].map(|path| path.display().to_string());
    let argv: Vec<_> = argv.iter().chain(&paths).map(String::as_str).collect();
    let said = in_lab(out.path(), &argv)?;
    for word in ["WARN", "ERROR"] {
        assert!(!said.contains(word), "{said}");
    }
    for page in ["operator.html", "plans/index.html", "index.html"] {
        let html = fs::read_to_string(book.join(page))?;
        for picture in html.split("<img src=\"").skip(1) {
            let (name, _) = picture.split_once('"').unwrap_or_default();
            let file = book.join(page).with_file_name("").join(name);
            assert!(file.is_file(), "{page}: {name}");
        }
    }
    Ok(())
}

#[test]
fn mandoc_has_nothing_to_say_about_the_manual() -> Result<()> {
    let out = tempfile::tempdir()?;
    let pages = varia(&["man", "--out", &out.path().display().to_string()])?;
    let pages: Vec<_> = pages.lines().collect();
    assert!(pages.len() > 10, "{pages:?}");
    // A page without a date is one that the same version has again: that alone is remarked.
    let script = "mandoc -T lint -W warning *.1 | grep -v ': missing date, using'; true";
    assert_eq!(in_lab(out.path(), &["bash", "-c", script])?, "");
    let text = in_lab(out.path(), &["mandoc", "-T", "utf8", pages[1]])?;
    assert!(text.contains("varia serve gh200 --socket"), "{text}");
    Ok(())
}

#[test]
fn mandoc_is_not_silent_on_a_broken_page() -> Result<()> {
    let out = tempfile::tempdir()?;
    let page = out.path().join("broken.1");
    fs::write(&page, ".TH a 1\n.SH NAME\na \\- b\n.XY\n")?;
    let lint = ["mandoc", "-T", "lint", "-W", "warning", "broken.1"];
    let said = in_lab(out.path(), &lint);
    assert!(said.is_err() || said.is_ok_and(|text| text.contains("XY")));
    Ok(())
}

#[test]
fn shells_take_their_completions() -> Result<()> {
    let out = tempfile::tempdir()?;
    for shell in ["bash", "fish", "zsh"] {
        let file = out.path().join(shell);
        let text = varia(&["completions", shell])?;
        assert!(text.contains("unbind"), "{shell}");
        fs::write(&file, text)?;
        let said = in_lab(out.path(), &[shell, "-n", shell])?;
        assert_eq!(said, "", "{shell}");
        fs::write(&file, "if [ ( { then\n'")?;
        let refused = in_lab(out.path(), &[shell, "-n", shell]);
        assert!(refused.is_err(), "{shell} takes anything: {refused:?}");
    }
    Ok(())
}
