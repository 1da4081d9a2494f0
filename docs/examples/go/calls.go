// Each gRPC call of the service once: go run calls.go HOST:PORT FILE.jpg [STREAM]
//
// docs/reference/grpc.md says how the packages portrait and inference are generated.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"example/inference"
	"example/portrait"

	"google.golang.org/grpc"
	health "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: go run calls.go HOST:PORT FILE.jpg [STREAM]")
	}
	data, err := os.ReadFile(os.Args[2])
	check(err)
	connection, err := grpc.Dial(os.Args[1], grpc.WithInsecure()) // of grpc-go before 1.63; grpc.NewClient since
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	client := portrait.NewSegmentationServiceClient(connection)
	picture := &portrait.Picture{Format: portrait.PictureFormat_PICTURE_FORMAT_JPEG, Data: data}
	models(ctx, client)
	still(ctx, client, picture)
	live(ctx, client, picture)
	if len(os.Args) > 3 {
		watch(ctx, client, os.Args[3])
	}
	alive(ctx, health.NewHealthClient(connection))
	infer(ctx, inference.NewGRPCInferenceServiceClient(connection), data)
}

func models(ctx context.Context, client portrait.SegmentationServiceClient) {
	reply, err := client.ListModels(ctx, &portrait.ListModelsRequest{})
	check(err)
	for _, model := range reply.Models {
		if model.Default {
			fmt.Printf("ListModels: %s %dx%d\n", model.Name, model.Width, model.Height)
		}
	}
}

func still(ctx context.Context, client portrait.SegmentationServiceClient, picture *portrait.Picture) {
	output := &portrait.Output{Mode: "cutout", Format: portrait.PictureFormat_PICTURE_FORMAT_PNG}
	reply, err := client.Segment(ctx, &portrait.SegmentRequest{Picture: picture, Output: output})
	check(err)
	fmt.Printf("Segment: %dx%d\n", reply.Picture.Width, reply.Picture.Height)
}

// live sends three frames, each after the result of the one before.
func live(ctx context.Context, client portrait.SegmentationServiceClient, picture *portrait.Picture) {
	stream, err := client.SegmentStream(ctx)
	check(err)
	config := &portrait.StreamConfig{Output: &portrait.Output{Mode: "mask"}, Delivery: portrait.Delivery_DELIVERY_EVERY_FRAME}
	check(stream.Send(&portrait.SegmentStreamRequest{Message: &portrait.SegmentStreamRequest_Config{Config: config}}))
	for sent := uint64(0); ; {
		message, err := stream.Recv()
		if err == io.EOF {
			return
		}
		check(err)
		if result := message.GetResult(); result != nil {
			if result.Error != nil {
				log.Fatal(result.Error.Message)
			}
			fmt.Printf("SegmentStream: %d %dx%d\n", result.Id, result.Picture.Width, result.Picture.Height)
		}
		if message.GetGoaway() != nil { // the server stops: its results go on for a while
			continue
		}
		if sent == 3 {
			check(stream.CloseSend())
			continue
		}
		frame := &portrait.Frame{Id: sent, TimestampUs: int64(sent) * 33_333, Picture: picture}
		check(stream.Send(&portrait.SegmentStreamRequest{Message: &portrait.SegmentStreamRequest_Frame{Frame: frame}}))
		sent++
	}
}

func watch(ctx context.Context, client portrait.SegmentationServiceClient, stream string) {
	results, err := client.Watch(ctx, &portrait.WatchRequest{Stream: stream})
	check(err)
	response, err := results.Recv()
	check(err)
	fmt.Printf("Watch: %dx%d\n", response.Result.Picture.Width, response.Result.Picture.Height)
}

func alive(ctx context.Context, client health.HealthClient) {
	reply, err := client.Check(ctx, &health.HealthCheckRequest{Service: "portrait.v1.SegmentationService"})
	check(err)
	fmt.Printf("Check: %s\n", reply.Status)
}

func infer(ctx context.Context, client inference.GRPCInferenceServiceClient, data []byte) {
	contents := &inference.InferTensorContents{BytesContents: [][]byte{data}}
	image := &inference.ModelInferRequest_InferInputTensor{
		Name: "image", Datatype: "BYTES", Shape: []int64{1}, Contents: contents,
	}
	request := &inference.ModelInferRequest{ModelName: "portrait", Inputs: []*inference.ModelInferRequest_InferInputTensor{image}}
	reply, err := client.ModelInfer(ctx, request)
	check(err)
	fmt.Printf("ModelInfer: %s %v\n", reply.Outputs[0].Name, reply.Outputs[0].Shape)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
