//! `ringdove certs`.

use super::Outcome;
use clap::Subcommand;
use ringdove::drivers::pki::{Role, files};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum CertsCommand {
    /// Make an authority: ca.pem and ca.key (keep the key off the nodes)
    Init {
        /// Where
        #[arg(long, value_name = "DIR", default_value = "certs")]
        dir: PathBuf,
    },
    /// Issue a folder with certificates for one node, or for a client with --client
    Issue {
        /// Where the authority is
        #[arg(long, value_name = "DIR", default_value = "certs")]
        dir: PathBuf,
        /// The folder's name within DIR
        name: String,
        /// May send commands, but not join as a node
        #[arg(long)]
        client: bool,
    },
}

pub fn run(command: CertsCommand) -> Outcome {
    match command {
        CertsCommand::Init { dir } => {
            files::init(&dir)?;
            println!("made an authority in {}", dir.display());
            println!("next: ringdove certs issue --dir {} NAME, once for each node", dir.display());
        }
        CertsCommand::Issue { dir, name, client } => {
            let role = if client { Role::Client } else { Role::Node };
            let folder = files::issue(&dir, &name, role)?;
            let folder = folder.display();
            match role {
                Role::Client => println!("next: ringdove get KEY --certs {folder}"),
                Role::Node => println!("next: copy {folder} to the node; ringdove node --certs {folder} …"),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
