"""stub"""
import hashlib, os
from pathlib import Path
def manifest(folder):
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            key = str(path.relative_to(folder))
            if path.is_symlink(): found[key] = f"-> {os.readlink(path)}"
            elif path.is_file(): found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            else: found[key] = "folder" if path.is_dir() else "special"
    return found
