//! Who the users are, and their passwords.

use std::io::{self, BufWriter, Write};
use std::rc::Rc;

use clap::Args;
use strowger::stack::auth::digest::{Algorithm, Hash, ha1};

use crate::digest;
use crate::template::Users;

/// The users and their passwords.
#[derive(Args)]
pub struct NameArguments {
    /// Users u00000, u00001, … taken in turn
    #[arg(long, default_value_t = 10_000)]
    users: u32,
    /// What stands before a user's name in its password
    #[arg(long, default_value = "pw")]
    password_prefix: String,
}

/// Writes what a server must know of the users: lines of name:realm:HA1.
#[derive(Args)]
pub struct ListArguments {
    #[command(flatten)]
    names: NameArguments,
    /// As the server's challenges will say it
    #[arg(long)]
    realm: String,
    /// Of which algorithms HA1 is made, a line for each: md5, sha-256, sha-512-256
    #[arg(long, value_parser = digest::algorithm, value_delimiter = ',', default_value = "md5")]
    algorithm: Vec<Algorithm>,
}

pub struct Accounts {
    pub names: Rc<Users>,
    password_prefix: String,
}

impl NameArguments {
    pub fn accounts(&self) -> Rc<Accounts> {
        Rc::new(Accounts { names: Rc::new(Users::new(self.users)), password_prefix: self.password_prefix.clone() })
    }
}

impl Accounts {
    pub fn ha1(&self, user: u32, realm: &[u8], algorithm: Algorithm) -> Hash {
        let name = self.names.name(user);
        ha1(algorithm, name, realm, &[self.password_prefix.as_bytes(), name].concat())
    }
}

/// `strowger-load users`
pub fn list(arguments: &ListArguments) -> Result<(), String> {
    let accounts = arguments.names.accounts();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut write = || -> io::Result<()> {
        for user in 0..accounts.names.count() {
            for algorithm in &arguments.algorithm {
                let ha1 = accounts.ha1(user, arguments.realm.as_bytes(), *algorithm);
                out.write_all(accounts.names.name(user))?;
                write!(out, ":{}:", arguments.realm)?;
                out.write_all(ha1.hex().bytes())?;
                out.write_all(b"\n")?;
            }
        }
        out.flush()
    };
    write().map_err(|error| format!("standard output: {error}"))
}
