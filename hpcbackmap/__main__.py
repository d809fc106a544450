from hpcbackmap.cli.app import main

main()
