//! `varia man` and `varia completions`: manual pages and shell completions, generated from the
//! definitions of the command line.

use std::fs;

use clap::CommandFactory;
use clap_complete::{generate, shells};
use clap_mangen::Man;

use crate::{
    Failure,
    args::{CompletionsArgs, ManArgs, Shell, Varia},
    files::{unwritten, write_all},
    output::print,
};

/// Heading of the examples in a command's help.
const EXAMPLES: &str = "Example:\n";

/// Prints a shell's completions.
pub(crate) fn completions(args: CompletionsArgs) -> Result<(), Failure> {
    let (mut varia, mut text) = (Varia::command(), Vec::new());
    match args.shell {
        Shell::Bash => generate(shells::Bash, &mut varia, "varia", &mut text),
        Shell::Fish => generate(shells::Fish, &mut varia, "varia", &mut text),
        Shell::Zsh => generate(shells::Zsh, &mut varia, "varia", &mut text),
    }
    print(&String::from_utf8(text)?)
}

/// Writes the manual's pages into a folder.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    fs::create_dir_all(&args.out).map_err(|error| unwritten(&args.out, &error))?;
    let mut varia = Varia::command().disable_help_subcommand(true);
    varia.build();
    let (mut text, mut made) = (String::new(), Vec::new());
    let commands = varia.get_subcommands();
    let pages = std::iter::once((&varia, "varia".to_owned()))
        .chain(commands.map(|command| (command, format!("varia-{}", command.get_name()))));
    for (command, name) in pages {
        let path = args.out.join(format!("{name}.1"));
        text += &format!("{}\n", path.display());
        made.push((path, page(command, &name)?.into_bytes()));
    }
    write_all(&made)?;
    print(&text)
}

/// A command's page.
fn page(command: &clap::Command, name: &str) -> Result<String, Failure> {
    let examples = command.get_after_help().map(ToString::to_string);
    let command = command.clone().after_help("");
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    // No date: the same version has the same pages. A blank line between two breaks is one space.
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        ".TH {} 1 \"\" \"varia {version}\" \"Varia\"\n",
        name.to_uppercase()
    );
    text += &String::from_utf8(page)?.replace(".br\n\n.br\n", ".sp\n");
    if let Some(examples) = examples {
        text += ".SH EXAMPLES\n.nf\n";
        for line in examples.replacen(EXAMPLES, "", 1).lines() {
            text += &line.trim_start().replace('\\', "\\e").replace('-', "\\-");
            text.push('\n');
        }
        text += ".fi\n";
    }
    Ok(text)
}
