//! Where the conf and the control socket are, as every command takes it.

use super::output::complain;
use clap::Args;
use std::path::PathBuf;
use strowger::config::{self, Conf, Machine, load};
use strowger::control::Client;

/// Where things are. Every command takes these, before or after its name.
#[derive(Args)]
pub struct Places {
    /// The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it
    /// are below its folder.
    #[arg(short = 'c', long = "conf", value_name = "FILE", global = true)]
    conf: Option<PathBuf>,
    /// The control socket, instead of [control] socket of the conf.
    #[arg(long, value_name = "PATH", global = true)]
    control: Option<PathBuf>,
}

impl Places {
    /// Reads the conf from its file as it is now. The error has a line for each fault.
    pub fn load(&self) -> Result<Conf, String> {
        let mut conf = config::load(self.conf.as_deref(), &Machine::this()).map_err(|faults| faults.to_string())?;
        if let Some(path) = &self.control {
            conf.control.socket = path.clone();
        }
        Ok(conf)
    }

    /// Returns places pinned to the same file, even if one that takes precedence has appeared meanwhile. `None` if there is no
    /// file.
    pub fn pinned(&self) -> Option<Places> {
        load::find(self.conf.as_deref()).ok().flatten().map(|path| Places { conf: Some(path), control: self.control.clone() })
    }

    /// Returns the conf's file name for display.
    pub fn conf_name(&self) -> String {
        match load::find(self.conf.as_deref()) {
            Ok(Some(path)) => path.display().to_string(),
            // Where it cannot be seen, loading has failed, and said so.
            Ok(None) | Err(_) => "built-in defaults".to_owned(),
        }
    }

    /// Connects to the running server.
    pub fn connect(&self) -> Result<Client, String> {
        Client::connect(&self.control_socket()?)
    }

    pub fn control_socket(&self) -> Result<PathBuf, String> {
        match &self.control {
            Some(path) => Ok(path.clone()),
            // A conf with faults elsewhere still says where its server listens: the server is to hear that it is refused.
            None => {
                let socket = load::control_socket(self.conf.as_deref())
                    .map_err(|faults| format!("{faults}; --control PATH names the server's control socket without a conf"))?;
                if let Some(doubt) = &socket.doubt {
                    complain(doubt);
                }
                Ok(socket.path)
            }
        }
    }
}
