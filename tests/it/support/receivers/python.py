

def main():
    secret = open("secret").read()
    headers = dict(line.split(": ", 1) for line in open("headers").read().splitlines())
    try:
        receive(secret, headers, open("body", "rb").read())
        print("accepted")
    except Exception as error:
        print("refused:", error)


main()
