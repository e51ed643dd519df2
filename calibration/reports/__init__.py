"""One self-contained HTML page for what a script left: verdict first, then figures, tables and how it was made."""
