//! Whether the machine runs on a battery, as the kernel tells it in `/sys/class/power_supply`.

use std::fs;
use std::path::Path;

/// Where the kernel tells it.
pub(super) const SUPPLIES: &str = "/sys/class/power_supply";

/// Whether a battery of the machine itself is being emptied. Machines without one, and those that do not tell, are not.
pub(super) fn is_on_battery(supplies: &Path) -> bool {
    let Ok(entries) = fs::read_dir(supplies) else { return false };
    entries.flatten().any(|entry| {
        let says = |file: &str, text: &str| {
            fs::read_to_string(entry.path().join(file)).is_ok_and(|content| content.trim() == text)
        };
        // That of a mouse or a headset is of scope Device.
        says("type", "Battery") && says("status", "Discharging") && !says("scope", "Device")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_on_battery_while_its_own_one_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let supply = |name: &str, files: &[(&str, &str)]| {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            for (file, content) in files {
                fs::write(dir.path().join(name).join(file), format!("{content}\n")).unwrap();
            }
        };
        assert!(!is_on_battery(&dir.path().join("none")));
        supply("AC", &[("type", "Mains"), ("online", "0")]);
        supply("mouse", &[("type", "Battery"), ("status", "Discharging"), ("scope", "Device")]);
        assert!(!is_on_battery(dir.path()));
        supply("BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        assert!(is_on_battery(dir.path()));
        supply("BAT0", &[("status", "Charging")]);
        assert!(!is_on_battery(dir.path()));
    }
}
