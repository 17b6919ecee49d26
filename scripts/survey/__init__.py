"""What compatibility.py and families.py share: which backbone replaces which, and random batches to try it with."""
