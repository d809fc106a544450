from hpcbackmap.cli import main

main()
