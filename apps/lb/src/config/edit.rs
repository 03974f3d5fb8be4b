//! Changes to a configuration, each giving a whole new one, under the rules of the file: what is made is written as
//! a file and read again. So a command can do what the file can, nothing else, and is refused in the same words.

use std::net::IpAddr;

use super::{Config, Outcome, Real, RealState, Vip, VipKey};

impl Config {
    /// With one more real.
    ///
    /// # Errors
    /// In one sentence, as of all changes: there is no such VIP, it has that real, or a rule of the file forbids it.
    pub(crate) fn add_real(&self, vip: &VipKey, real: Real) -> Result<Self, String> {
        self.changed_vip(vip, |vip| {
            if vip.reals.iter().any(|other| other.address == real.address) {
                return Err(format!("the VIP {} has the real {} already", vip.key(), real.address));
            }
            vip.reals.push(real);
            Ok(())
        })
    }

    /// Without a real.
    pub(crate) fn remove_real(&self, vip: &VipKey, address: IpAddr) -> Result<Self, String> {
        self.changed_real(vip, address, |vip, index| {
            vip.reals.remove(index);
        })
    }

    /// With another weight of a real.
    pub(crate) fn set_weight(&self, vip: &VipKey, address: IpAddr, weight: u32) -> Result<Self, String> {
        self.changed_real(vip, address, |vip, index| vip.reals[index].weight = weight)
    }

    /// With another state of a real.
    pub(crate) fn set_state(&self, vip: &VipKey, address: IpAddr, state: RealState) -> Result<Self, String> {
        self.changed_real(vip, address, |vip, index| vip.reals[index].state = state)
    }

    /// With one more VIP.
    pub(crate) fn add_vip(&self, vip: Vip) -> Result<Self, String> {
        if self.vip(&vip.key()).is_some() {
            return Err(format!("there is a VIP {} already", vip.key()));
        }
        let mut config = self.clone();
        config.vips.push(vip);
        config.valid()
    }

    /// Without a VIP.
    pub(crate) fn remove_vip(&self, key: &VipKey) -> Result<Self, String> {
        let mut config = self.clone();
        config.vips.retain(|vip| vip.key() != *key);
        if config.vips.len() == self.vips.len() {
            return Err(self.no_vip(key));
        }
        config.valid()
    }

    fn changed_real(
        &self,
        vip: &VipKey,
        address: IpAddr,
        change: impl FnOnce(&mut Vip, usize),
    ) -> Result<Self, String> {
        self.changed_vip(vip, |vip| {
            let index = vip.reals.iter().position(|real| real.address == address).ok_or_else(|| {
                let reals = few(vip.reals.iter().map(|real| real.address));
                format!("the VIP {} has no real {address}; its reals: {reals}", vip.key())
            })?;
            change(vip, index);
            Ok(())
        })
    }

    fn changed_vip(
        &self,
        key: &VipKey,
        change: impl FnOnce(&mut Vip) -> Result<(), String>,
    ) -> Result<Self, String> {
        let mut config = self.clone();
        let vip = config.vips.iter_mut().find(|vip| vip.key() == *key).ok_or_else(|| self.no_vip(key))?;
        change(vip)?;
        config.valid()
    }

    fn no_vip(&self, key: &VipKey) -> String {
        format!("there is no VIP {key}; there are: {}", few(self.vips.iter().map(Vip::key)))
    }

    /// What a file that says so is warned of, in sentences.
    pub(crate) fn warnings(&self) -> Vec<String> {
        Self::parse("", &self.to_toml()).diagnostics.iter().map(super::Diagnostic::sentence).collect()
    }

    /// The configuration, if a file may say so.
    fn valid(self) -> Result<Self, String> {
        let Outcome { config, diagnostics } = Self::parse("", &self.to_toml());
        config.ok_or_else(|| {
            let error = diagnostics.iter().find(|diagnostic| diagnostic.is_error());
            error.expect("without an error there is a configuration").sentence()
        })
    }
}

/// Names what there is, or the first of it.
pub(crate) fn few(all: impl ExactSizeIterator<Item: ToString>) -> String {
    const FEW: usize = 8;
    let more = all.len().saturating_sub(FEW);
    let names: Vec<String> = all.take(FEW).map(|one| one.to_string()).collect();
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}
