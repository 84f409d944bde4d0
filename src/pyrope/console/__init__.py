"""What the command line needs beside the server: settings as options, a client, backups."""
