"""How fast, how big and how accurate is it here; and did it get slower?"""
