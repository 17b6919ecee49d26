"""Images and annotations in the forms that networks train on: reads and checks them."""
