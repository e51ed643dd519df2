"""What model.py is put together from: the static side, dropout, and the closed forms that it knows of VISIT."""
