//! A Redis client of a few lines.

use ringdove::engine::resp::{Reply, ReplyLimits};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than a command may wait inside a node.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection.
pub struct Resp {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Resp {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Result<Resp> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_write_timeout(Some(READ_TIMEOUT))?;
        Ok(Resp { stream, unread: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next reply; an error of kind `UnexpectedEof` when the node closed.
    pub fn reply(&mut self) -> Result<Reply> {
        loop {
            match Reply::parse(&self.unread, &ReplyLimits::default()) {
                Ok(Some((reply, taken))) => {
                    self.unread.drain(..taken);
                    return Ok(reply);
                }
                Ok(None) => {}
                Err(error) => return Err(Error::new(ErrorKind::InvalidData, error)),
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.unread.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Runs one command.
    pub fn call<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Result<Reply> {
        self.send(&encode(command))?;
        self.reply()
    }

    /// Runs one command written in words.
    pub fn words(&mut self, command: &str) -> Result<Reply> {
        self.call(&command.split(' ').collect::<Vec<_>>())
    }

    /// Runs commands all at once.
    pub fn pipeline(&mut self, commands: &[Vec<Vec<u8>>]) -> Result<Vec<Reply>> {
        let mut writer = self.stream.try_clone()?;
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        // Written beside the reading, or both sides might wait for the other to read.
        let written = std::thread::spawn(move || writer.write_all(&bytes));
        let replies = commands.iter().map(|_| self.reply()).collect::<Result<Vec<_>>>();
        written.join().expect("the writer doesn't panic")?;
        replies
    }
}

/// A command as an array of strings.
pub fn encode<A: AsRef<[u8]>>(command: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
