"""``python -m icconv_mm`` is the command ``icconv``."""

from icconv_mm.app.commands import main

if __name__ == '__main__':
    main()
