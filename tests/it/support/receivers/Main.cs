using System;
using System.Collections.Generic;
using System.IO;

static class Program
{
    static void Main()
    {
        var headers = new Dictionary<string, string>();
        foreach (var line in File.ReadAllLines("headers"))
        {
            var parts = line.Split(new[] { ": " }, 2, StringSplitOptions.None);
            headers[parts[0]] = parts[1];
        }
        try
        {
            Receiver.Receive(File.ReadAllText("secret"), headers, File.ReadAllBytes("body"));
            Console.WriteLine("accepted");
        }
        catch (Exception error)
        {
            Console.WriteLine("refused: " + error.Message);
        }
    }
}
