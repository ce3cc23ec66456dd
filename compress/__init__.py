"""The maker's side: from a teacher to a measured int8 student. Nothing here runs on the device."""
