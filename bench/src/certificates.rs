//! A certificate authority for one cluster, and a certificate for each of its nodes.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// The authority; its files and those that it signs are in one folder.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(folder.join("ca.pem"), params.self_signed(&key)?.pem())?;
        Ok(Self {
            folder: folder.to_path_buf(),
            issuer: Issuer::new(params, key),
        })
    }

    /// What a node of this name is told of its files.
    pub(crate) fn arguments(&self, name: &str) -> Result<[String; 3]> {
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        let path = |end: &str| self.folder.join(format!("{name}{end}"));
        fs::write(path(".pem"), certificate.pem())?;
        let mut private = OpenOptions::new();
        private.write(true).create_new(true).mode(0o600);
        let mut file = private.open(path(".key"))?;
        file.write_all(key.serialize_pem().as_bytes())?;
        Ok([
            format!("--tls-ca={}", self.folder.join("ca.pem").display()),
            format!("--tls-cert={}", path(".pem").display()),
            format!("--tls-key={}", path(".key").display()),
        ])
    }
}
